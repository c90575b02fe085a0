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

  /// Populated, but changed between the last two scans: KSM does not merge such a page. In no other
  /// count, and not in the sketch.
  std::uint64_t unsettled = 0;

  std::uint64_t present() const { return zero + unique + duplicate + unsettled; }

  friend bool operator==(const PageCounts&, const PageCounts&) = default;
};

/// What the fleet knows of a guest's memory: exact counts, and a sketch of the set of its distinct
/// contents for comparing it with others of the same sharing domain (overlap.h).
///
/// Immutable; copies share the sketch and are cheap.
/// Threads: every method may be called from any thread.
class Fingerprint {
 public:
  /// The largest serialized form, whatever the guest's size.
  static constexpr std::size_t kBytesMax = 192U << 10U;

  /// About how many bytes a guest with so many distinct pages is worth: 16 KiB up to 1 GiB, then as
  /// the square root of its size, at most 128 KiB.
  static std::size_t bytes_for(std::uint64_t unique);

  /// `bytes`: about the size of the serialized form; 0: bytes_for() decides.
  static Fingerprint of(const Scan& scan, std::size_t bytes = 0);

  Fingerprint(const PageCounts& counts, Sketch sketch);

  /// The guests together, as if they were one. The counts `unique` and `duplicate` are then
  /// estimates, and the intervals of overlap.h know nothing of their error: merge all at once, not
  /// one by one. To take a guest out again, merge the others anew: a cell does not tell who set it.
  static Fingerprint merge(std::span<const Fingerprint> fingerprints);

  const PageCounts& counts() const { return counts_; }
  const Sketch& sketch() const { return data_->sketch; }

  /// Set cells of a band, counted once.
  std::size_t occupied(std::size_t band) const { return data_->occupied[band]; }

  /// Names this content: two fingerprints of one version are equal (but for a chance of 2^-64).
  std::uint64_t version() const { return data_->version; }

  /// The form in docs/formats/fingerprinter.md, at most kBytesMax bytes.
  std::vector<std::byte> serialize() const;

  /// kCorrupt: no fingerprint, or one that no scan makes (more cells set than pages, say).
  static Result<Fingerprint> parse(std::span<const std::byte> bytes);

  /// What makes this one of `base`; empty when that is no shorter than serialize().
  std::vector<std::byte> delta_since(const Fingerprint& base) const;

  /// The fingerprint that a delta makes of this one. kCorrupt: no delta. kInvalid: it was made for
  /// another base: ask for the whole fingerprint.
  Result<Fingerprint> with_delta(std::span<const std::byte> delta) const;

 private:
  struct Data {
    Sketch sketch;
    std::array<std::size_t, Sketch::kBands> occupied{};
    std::uint64_t version = 0;
  };

  PageCounts counts_;
  std::shared_ptr<const Data> data_;
};

}  // namespace samepage::fingerprinter
