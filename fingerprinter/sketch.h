#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/page_hash.h"

namespace samepage::fingerprinter {

/// A set of page hashes in 56 KiB, whatever its size: what overlap.h estimates from.
///
/// Memory Buddies (Wood et al. 2009) compares sets by one Bloom filter each. Its filter must grow
/// with the VM, and two VMs of different size need the larger's filter size to be compared at all.
/// A *hash-range sample* bounds the size: keep only hashes below a threshold, and scale up. But the
/// best threshold depends on the set's size, and only common ranges can be compared.
///
/// So this sketch keeps every threshold of a power of two at once, as the multiresolution bitmap
/// does for counting (Estan, Varghese and Fisk 2003): band i holds the hashes that begin with
/// exactly i zero bits, 2^-(i+1) of the hash space, in a bitmap of its own: a Bloom filter with
/// k = 1, which beats larger k for intersections. The cell is the hash's low bits. All sketches
/// have the same shape: any two compare band by band, the union is the OR, nothing is negotiated.
/// From 16 MiB to 64 GiB of distinct pages, four or five bands are filled between a twentieth and
/// three quarters, and those decide the estimate; fuller and emptier ones get little weight.
///
/// Standard error of the overlap of two sets of equal size, at any size in that range: 0.1 % of
/// their pages when four fifths are common, 0.3 % when a tenth is; of sets whose sizes are 1 to 8:
/// 0.5 to 0.8 % of the smaller.
///
/// Threads: none of its own; const methods may run at the same time.
class Sketch {
 public:
  static constexpr std::size_t kBands = 14;
  static constexpr std::size_t kBandWords = 512;
  static constexpr std::size_t kBandCells = kBandWords * 64;

  /// Aligned, so that a band is compared in whole cache lines.
  struct alignas(64) Band {
    std::array<std::uint64_t, kBandWords> words{};
  };

  void add(PageHash hash);
  void merge(const Sketch& other);

  Band& band(std::size_t index) { return bands_[index]; }
  const Band& band(std::size_t index) const { return bands_[index]; }

  /// The share of all hashes that a band holds; the last one holds the rest.
  static double share(std::size_t band);

 private:
  std::array<Band, kBands> bands_;
};

/// Cells that are set; of the union of two bands. By AVX-512 VPOPCNTDQ or AVX2 where there is one.
std::size_t count_cells(const Sketch::Band& band);
std::size_t count_cells(const Sketch::Band& a, const Sketch::Band& b);

}  // namespace samepage::fingerprinter
