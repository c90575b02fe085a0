#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/sharing_domain.h"
#include "pagecache/checkpoint.h"
#include "pagecache/page_cache.h"

namespace samepage::pagecache {

/// The checkpoints of guests that left this host, the newest of each VM, within a bounded budget:
/// the oldest gives way first.
/// Threads: every method may be called from any thread.
class CheckpointStore final {
 public:
  struct Options {
    std::string folder = "/var/lib/samepage/checkpoints";
    std::uint64_t bytes_max = 0;  ///< 0: keeps nothing.
    std::uint64_t disk_free_min = std::uint64_t{1} << 30U;
  };

  explicit CheckpointStore(Options options) : options_(std::move(options)) {}

  bool is_on() const { return options_.bytes_max > 0; }

  /// For the pages of a guest that leaves; nothing is kept yet. Errors as
  /// CheckpointWriter::create().
  Result<std::unique_ptr<CheckpointWriter>> begin(const SharingDomain& domain) const;

  /// The guest has left: keeps its pages.
  void keep(const VmInfo& vm, std::shared_ptr<const Checkpoint> checkpoint);

  /// The guest is back, or its pages are to be forgotten.
  void drop(const VmId& vm);

  /// Adds the domain's checkpoints to a cache: that of `vm` alone, or those of all others.
  enum class Which : std::uint8_t { kOfVm, kOfOthers };
  void add_to(PageCache& cache, const SharingDomain& domain, const VmId& vm, Which which) const;

  std::uint64_t bytes() const;

 private:
  struct Entry {
    VmId vm;
    std::string vm_name;
    std::string domain;
    std::shared_ptr<const Checkpoint> checkpoint;
  };

  std::uint64_t held() const REQUIRES(mutex_);

  const Options options_;
  mutable Mutex mutex_;
  std::deque<Entry> entries_ GUARDED_BY(mutex_);  // Oldest first.
};

}  // namespace samepage::pagecache
