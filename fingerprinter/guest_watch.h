#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"
#include "fingerprinter/census.h"
#include "fingerprinter/change_tracker.h"
#include "fingerprinter/page_scanner.h"

namespace samepage::fingerprinter {

/// One running guest, fingerprinted again and again: the first rescan() reads all its RAM, later
/// ones what may have changed.
///
/// Threads: one at a time.
/// Lifetime: destroy it when the guest has ended or leaves, before a post-copy migration, and when
/// watches() says no; the guest is then as if it had never been watched.
class GuestWatch {
 public:
  /// kNotFound, kIo: as open_guest_memory().
  static Result<std::unique_ptr<GuestWatch>> open(const VmInfo& vm, HashSeed seed);

  /// Whether this is still a watch of that guest: of its process, its size and its domain's seed.
  bool watches(const VmInfo& vm, HashSeed seed) const;

  /// How the changes are found: ChangeTracker::name().
  std::string_view tracker() const { return tracker_->name(); }

  struct Pass {
    std::uint64_t pages_looked_at = 0;
    std::uint64_t pages_read = 0;
  };

  /// kNotFound: the guest is gone. kUnavailable: stopped. kIo: the kernel refused. After an error
  /// the next call reads everything again.
  Result<Fingerprint> rescan(const ScanOptions& options = {});

  const Pass& last_pass() const { return pass_; }

 private:
  GuestWatch(const VmInfo& vm, HashSeed seed, std::unique_ptr<GuestMemory> memory,
             std::unique_ptr<ChangeTracker> tracker);

  std::vector<PageRun> runs_to_look_at(std::vector<PageRun> changed) const;
  Result<std::vector<PageRun>> populated_among(std::span<const PageRun> runs);
  Result<std::vector<PageRun>> populated_and_forgotten(std::span<const PageRun> runs);
  Result<void> look(const ScanOptions& options);

  const VmInfo vm_;
  const HashSeed seed_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ChangeTracker> tracker_;  // Borrows the memory.
  Census census_;
  std::optional<Fingerprint> latest_;
  Pass pass_;
  std::uint64_t passes_ = 0;
  bool must_read_all_ = true;
  bool had_unsettled_ = false;
};

}  // namespace samepage::fingerprinter
