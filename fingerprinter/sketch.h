#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/page_hash.h"

namespace samepage::fingerprinter {

/// A set of page hashes in a few KiB, as many as one likes to spend: what overlap.h estimates from.
///
/// Memory Buddies (Wood et al. 2009) compares sets by one Bloom filter each. Its filter must grow
/// with the VM, and two VMs of different size need the larger's filter size to be compared at all.
/// A *hash-range sample* bounds the size: keep only hashes below a threshold, and scale up. But the
/// best threshold depends on the set's size, and only common ranges can be compared.
///
/// So this sketch keeps every threshold of a power of two at once, as the multiresolution bitmap
/// does for counting (Estan, Varghese and Fisk 2003): band i stands for the hashes that begin with
/// exactly i zero bits, 2^-(i+1) of the hash space, in a bitmap of its own: a Bloom filter with
/// k = 1, which beats larger k for intersections. The cell is the hash's low bits, 2^R of them for
/// a resolution R; a sketch keeps only the first `cells` of each band and ignores the hashes that
/// fall beyond. So any two sketches compare: the finer one is folded (neighbouring cells become
/// one), the longer one is cut, the union is the OR, and nothing is negotiated. From 16 MiB to
/// 64 GiB of distinct pages, four or five bands are filled between a twentieth and three quarters,
/// and those decide the estimate; fuller and emptier ones get little weight, and cost few bytes on
/// the wire.
///
/// Standard error of the overlap of two sets of equal size, whatever their size and overlap, by the
/// bytes on the wire: at most 0.5 % of their pages in 8 KiB, 0.25 % in 32 KiB, 0.12 % in 128 KiB
/// (`tools/bench fingerprint` measures it). Sets of different sizes: more, relative to the smaller.
///
/// Threads: none of its own; const methods may run at the same time.
class Sketch {
 public:
  static constexpr std::size_t kBands = 14;
  static constexpr unsigned kResolutionMin = 9;
  static constexpr unsigned kResolutionMax = 18;
  static constexpr std::size_t kCellsStep = 512;  ///< A cache line.

  struct Shape {
    unsigned resolution = kResolutionMin;
    std::size_t cells = kCellsStep;  ///< Of a band: a multiple of kCellsStep, at most 2^resolution.

    bool valid() const;

    /// Of all hashes, those that a band of this shape keeps; the last band takes the rest.
    double share(std::size_t band) const;

    friend bool operator==(const Shape&, const Shape&) = default;
  };

  /// The shape in which a set of `unique` hashes takes at most about `bytes` on the wire, and at
  /// most four times that in memory.
  static Shape shape_for(std::uint64_t unique, std::size_t bytes);

  /// What both of two shapes can be reduced to.
  static Shape common(Shape a, Shape b);

  /// `shape` must be valid.
  explicit Sketch(Shape shape);

  /// Where a hash belongs; nothing when this sketch does not keep it.
  struct Place {
    std::size_t band = 0;
    std::size_t cell = 0;
  };
  std::optional<Place> place_of(PageHash hash) const;

  void add(PageHash hash);

  /// Becomes the union, in the common shape.
  void merge(const Sketch& other);

  /// The sketch that the same set has in a smaller shape.
  Sketch reduced(Shape shape) const;

  Shape shape() const { return shape_; }
  std::span<std::uint64_t> band(std::size_t index);
  std::span<const std::uint64_t> band(std::size_t index) const { return band(index, shape_.cells); }

  /// The first `cells` of a band; a multiple of kCellsStep.
  std::span<const std::uint64_t> band(std::size_t index, std::size_t cells) const;

 private:
  struct alignas(64) Line {
    std::array<std::uint64_t, kCellsStep / 64> words{};
  };
  Shape shape_;
  std::vector<Line> lines_;
};

}  // namespace samepage::fingerprinter
