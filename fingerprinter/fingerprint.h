#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/result.h"
#include "fingerprinter/page_scanner.h"
#include "fingerprinter/sketch.h"

namespace samepage::fingerprinter {

/// Pages of one guest (of several: after merge()).
struct PageCounts {
  std::uint64_t pages = 0;      ///< Its RAM, absent pages included.
  std::uint64_t zero = 0;       ///< Populated, but every byte is zero.
  std::uint64_t unique = 0;     ///< Distinct contents, zero left out.
  std::uint64_t duplicate = 0;  ///< Further copies of those contents within the guest.

  std::uint64_t present() const { return zero + unique + duplicate; }
};

/// What the fleet knows of a guest's memory: exact counts, and a sketch of the set of its distinct
/// contents for comparing it with others of the same sharing domain (overlap.h).
///
/// Immutable; copies share the sketch and are cheap.
/// Threads: every method may be called from any thread.
class Fingerprint {
 public:
  /// The largest serialized form; a 1 GiB guest's takes about 30 KB.
  static constexpr std::size_t kBytesMax = 64U << 10U;

  static Fingerprint of(const Scan& scan);

  /// The guests together, as if they were one. The counts `unique` and `duplicate` are then
  /// estimates, and the intervals of overlap.h know nothing of their error: merge all at once, not
  /// one by one.
  static Fingerprint merge(std::span<const Fingerprint> fingerprints);

  const PageCounts& counts() const { return counts_; }
  const Sketch& sketch() const { return data_->sketch; }

  /// Set cells of a band, counted once.
  std::size_t occupied(std::size_t band) const { return data_->occupied[band]; }

  /// The form in docs/formats/fingerprinter.md, at most kBytesMax bytes.
  std::vector<std::byte> serialize() const;

  /// kCorrupt: no fingerprint, or one that no scan makes (more cells set than pages, say).
  static Result<Fingerprint> parse(std::span<const std::byte> bytes);

 private:
  struct Data {
    Sketch sketch;
    std::array<std::size_t, Sketch::kBands> occupied{};
  };

  Fingerprint(const PageCounts& counts, std::unique_ptr<Data> data);

  PageCounts counts_;
  std::shared_ptr<const Data> data_;
};

}  // namespace samepage::fingerprinter
