#include "fingerprinter/sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kLineWords = Sketch::kCellsStep / 64;
constexpr std::size_t kMemoryPerWire = 4;
// What coding adds to the entropy, and the counts before the bands.
constexpr double kCodingLoss = 1.05;
constexpr std::size_t kHeaderBytes = 96;

/// Bits that tell whether a cell is set which is with probability `fill`.
double entropy(double fill) {
  if (fill <= 0 || fill >= 1) return 0;
  return -(fill * std::log2(fill) + (1 - fill) * std::log2(1 - fill));
}

}  // namespace

bool Sketch::Shape::valid() const {
  return resolution >= kResolutionMin && resolution <= kResolutionMax && cells >= kCellsStep &&
         cells <= std::size_t{1} << resolution && cells % kCellsStep == 0;
}

double Sketch::Shape::share(std::size_t band) const {
  const double of_band = std::ldexp(1.0, -static_cast<int>(std::min(band + 1, kBands - 1)));
  return std::ldexp(of_band * static_cast<double>(cells), -static_cast<int>(resolution));
}

Sketch::Shape Sketch::shape_for(std::uint64_t unique, std::size_t bytes) {
  const std::size_t body = bytes > 2 * kHeaderBytes ? bytes - kHeaderBytes : kHeaderBytes;
  const std::size_t in_memory = std::bit_floor(bytes * kMemoryPerWire * 8 / kBands);
  Shape shape;
  for (unsigned resolution = kResolutionMin; resolution <= kResolutionMax; ++resolution) {
    const std::size_t whole = std::size_t{1} << resolution;
    double bits = 0;  // Of one cell of every band.
    for (std::size_t i = 0; i < kBands; ++i) {
      const double share = Shape{resolution, whole}.share(i);
      const double load = static_cast<double>(unique) * share / static_cast<double>(whole);
      bits += entropy(-std::expm1(-load));
    }
    const double on_wire = 8.0 * static_cast<double>(body) / std::max(bits * kCodingLoss, 1e-3);
    std::size_t cells = std::min(whole, in_memory);
    if (on_wire < static_cast<double>(cells)) cells = static_cast<std::size_t>(on_wire);
    cells -= cells % kCellsStep;
    shape = {resolution, std::max(cells, kCellsStep)};
    if (cells < whole || whole >= in_memory) break;
  }
  return shape;
}

Sketch::Shape Sketch::common(Shape a, Shape b) {
  const unsigned resolution = std::min(a.resolution, b.resolution);
  const std::size_t cells =
      std::min(a.cells >> (a.resolution - resolution), b.cells >> (b.resolution - resolution));
  return {resolution, std::max(cells - cells % kCellsStep, kCellsStep)};
}

Sketch::Sketch(Shape shape) : shape_(shape), lines_(shape.cells / kCellsStep * kBands) {
  CHECK(shape.valid());
}

std::optional<Sketch::Place> Sketch::place_of(PageHash hash) const {
  const std::uint64_t low = hash.value % (std::uint64_t{1} << kResolutionMax);
  const std::size_t cell = low >> (kResolutionMax - shape_.resolution);
  if (cell >= shape_.cells) return std::nullopt;
  const auto zeros = static_cast<std::size_t>(std::countl_zero(hash.value));
  return Place{std::min(zeros, kBands - 1), cell};
}

void Sketch::add(PageHash hash) {
  const auto place = place_of(hash);
  if (!place) return;
  band(place->band)[place->cell / 64] |= std::uint64_t{1} << (place->cell % 64);
}

void Sketch::merge(const Sketch& other) {
  const Shape shape = common(shape_, other.shape_);
  if (shape != shape_) *this = reduced(shape);
  if (shape != other.shape_) return merge(other.reduced(shape));
  for (std::size_t i = 0; i < kBands; ++i) {
    std::ranges::transform(band(i), other.band(i), band(i).begin(),
                           [](std::uint64_t a, std::uint64_t b) { return a | b; });
  }
}

Sketch Sketch::reduced(Shape shape) const {
  CHECK(shape.resolution <= shape_.resolution);
  const unsigned fold = shape_.resolution - shape.resolution;
  Sketch made(shape);
  for (std::size_t i = 0; i < kBands; ++i) {
    const auto from = band(i);
    const auto to = made.band(i);
    if (fold == 0) {
      std::ranges::copy(from.first(to.size()), to.begin());
      continue;
    }
    for (std::size_t at = 0; at < from.size(); ++at) {
      for (std::uint64_t word = from[at]; word != 0; word &= word - 1) {
        const std::size_t cell =
            (at * 64 + static_cast<std::size_t>(std::countr_zero(word))) >> fold;
        if (cell < shape.cells) to[cell / 64] |= std::uint64_t{1} << (cell % 64);
      }
    }
  }
  return made;
}

std::span<std::uint64_t> Sketch::band(std::size_t index) {
  const std::size_t lines = shape_.cells / kCellsStep;
  return {lines_[index * lines].words.data(), lines * kLineWords};
}

std::span<const std::uint64_t> Sketch::band(std::size_t index, std::size_t cells) const {
  CHECK(cells <= shape_.cells);
  return {lines_[index * (shape_.cells / kCellsStep)].words.data(), cells / 64};
}

}  // namespace samepage::fingerprinter
