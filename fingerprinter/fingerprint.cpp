#include "fingerprinter/fingerprint.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <xxhash.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "fingerprinter/band_coder.h"
#include "fingerprinter/overlap.h"
#include "fingerprinter/sketch_kernels.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint32_t kMagic = 0x32465053;       // "SPF2", little-endian.
constexpr std::uint32_t kDeltaMagic = 0x31445053;  // "SPD1", little-endian.
constexpr std::uint64_t kPagesMax = std::uint64_t{1} << 40U;
constexpr std::size_t kLinesMax = (std::size_t{1} << Sketch::kResolutionMax) / Sketch::kCellsStep;

PageCounts counts_of(const Scan& scan) {
  std::vector<PageHash> hashes;
  hashes.reserve(scan.hashed.size());
  for (const ScannedPage& page : scan.hashed) hashes.push_back(page.hash);
  std::ranges::sort(hashes);
  const auto unique =
      static_cast<std::uint64_t>(std::unique(hashes.begin(), hashes.end()) - hashes.begin());
  return {.pages = scan.pages,
          .zero = scan.zero,
          .unique = unique,
          .duplicate = scan.hashed.size() - unique};
}

void write_counts(const PageCounts& counts, ByteWriter& writer) {
  for (const std::uint64_t count :
       {counts.pages, counts.zero, counts.unique, counts.duplicate, counts.unsettled}) {
    writer.varint(count);
  }
}

Result<PageCounts> read_counts(ByteReader& reader) {
  PageCounts counts;
  counts.pages = TRY(reader.varint(kPagesMax));
  counts.zero = TRY(reader.varint(kPagesMax));
  counts.unique = TRY(reader.varint(kPagesMax));
  counts.duplicate = TRY(reader.varint(kPagesMax));
  counts.unsettled = TRY(reader.varint(kPagesMax));
  if (counts.present() > counts.pages || (counts.unique == 0 && counts.duplicate != 0)) {
    return fail(Errc::kCorrupt, "the page counts contradict each other");
  }
  return counts;
}

Result<void> read_bands(ByteReader& reader, Sketch& sketch) {
  for (std::size_t i = 0; i < Sketch::kBands; ++i) TRY(read_band(reader, sketch.band(i)));
  if (!reader.at_end()) return fail(Errc::kCorrupt, "bytes follow the last band");
  return {};
}

/// What overlap.cpp relies on; a scan never breaks it.
Result<Fingerprint> checked(const PageCounts& counts, Sketch sketch) {
  Fingerprint fingerprint(counts, std::move(sketch));
  std::size_t occupied = 0;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) occupied += fingerprint.occupied(i);
  if (occupied > counts.unique) return fail(Errc::kCorrupt, "more cells are set than pages exist");
  return fingerprint;
}

std::uint64_t version_of(const PageCounts& counts, const Sketch& sketch) {
  std::uint64_t version = XXH3_64bits(&counts, sizeof(counts));
  static_assert(std::has_unique_object_representations_v<PageCounts>);
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const auto bytes = std::as_bytes(sketch.band(i));
    version = XXH3_64bits_withSeed(bytes.data(), bytes.size(), version);
  }
  return version;
}

}  // namespace

std::size_t Fingerprint::bytes_for(std::uint64_t unique) {
  constexpr double kBase = 16U << 10U;
  constexpr double kMost = 128U << 10U;
  constexpr double kBasePages = 1U << 18U;
  const double growth = std::sqrt(std::max(static_cast<double>(unique) / kBasePages, 1.0));
  return static_cast<std::size_t>(std::min(kBase * growth, kMost));
}

Fingerprint Fingerprint::of(const Scan& scan, std::size_t bytes) {
  const PageCounts counts = counts_of(scan);
  Sketch sketch(Sketch::shape_for(counts.unique, bytes == 0 ? bytes_for(counts.unique) : bytes));
  for (const ScannedPage& page : scan.hashed) sketch.add(page.hash);
  return {counts, std::move(sketch)};
}

Fingerprint::Fingerprint(const PageCounts& counts, Sketch sketch) : counts_(counts) {
  Data data{.sketch = std::move(sketch)};
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    data.occupied[i] = count_set(data.sketch.band(i));
  }
  data.version = version_of(counts_, data.sketch);
  data_ = std::make_shared<const Data>(std::move(data));
}

Fingerprint Fingerprint::merge(std::span<const Fingerprint> fingerprints) {
  Sketch sketch(fingerprints.empty() ? Sketch::Shape() : fingerprints.front().sketch().shape());
  PageCounts counts;
  for (const Fingerprint& one : fingerprints) {
    sketch.merge(one.sketch());
    counts.pages += one.counts_.pages;
    counts.zero += one.counts_.zero;
    counts.unique += one.counts_.unique;
    counts.duplicate += one.counts_.duplicate;
    counts.unsettled += one.counts_.unsettled;
  }
  std::uint64_t occupied = 0;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) occupied += count_set(sketch.band(i));
  const auto distinct =
      std::max(occupied, static_cast<std::uint64_t>(std::llround(footprint(fingerprints).pages)));
  counts.duplicate += counts.unique - distinct;
  counts.unique = distinct;
  return {counts, std::move(sketch)};
}

std::vector<std::byte> Fingerprint::serialize() const {
  ByteWriter writer;
  writer.u32(kMagic);
  write_counts(counts_, writer);
  writer.u8(static_cast<std::uint8_t>(sketch().shape().resolution));
  writer.varint(sketch().shape().cells / Sketch::kCellsStep);
  for (std::size_t i = 0; i < Sketch::kBands; ++i) write_band(sketch().band(i), writer);
  return writer.take();
}

Result<Fingerprint> Fingerprint::parse(std::span<const std::byte> bytes) {
  if (bytes.size() > kBytesMax) return fail(Errc::kCorrupt, "the fingerprint exceeds its limit");
  ByteReader reader(bytes);
  if (TRY(reader.u32()) != kMagic) return fail(Errc::kCorrupt, "these bytes are no fingerprint");
  const PageCounts counts = TRY(read_counts(reader));
  Sketch::Shape shape;
  shape.resolution = TRY(reader.u8());
  shape.cells = TRY(reader.varint(kLinesMax)) * Sketch::kCellsStep;
  if (!shape.valid()) return fail(Errc::kCorrupt, "the sketch has an impossible shape");
  Sketch sketch(shape);
  TRY(read_bands(reader, sketch));
  return checked(counts, std::move(sketch));
}

std::vector<std::byte> Fingerprint::delta_since(const Fingerprint& base) const {
  if (base.sketch().shape() != sketch().shape()) return {};
  ByteWriter writer;
  writer.u32(kDeltaMagic);
  writer.u64(base.version());
  writer.u64(version());
  write_counts(counts_, writer);
  Sketch changed(sketch().shape());
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    std::ranges::transform(sketch().band(i), base.sketch().band(i), changed.band(i).begin(),
                           [](std::uint64_t now, std::uint64_t then) { return now ^ then; });
    write_band(changed.band(i), writer);
  }
  return writer.size() < serialize().size() ? writer.take() : std::vector<std::byte>();
}

Result<Fingerprint> Fingerprint::with_delta(std::span<const std::byte> delta) const {
  if (delta.size() > kBytesMax) return fail(Errc::kCorrupt, "the delta exceeds its limit");
  ByteReader reader(delta);
  if (TRY(reader.u32()) != kDeltaMagic) return fail(Errc::kCorrupt, "these bytes are no delta");
  const std::uint64_t base = TRY(reader.u64());
  const std::uint64_t result = TRY(reader.u64());
  const PageCounts counts = TRY(read_counts(reader));
  if (base != version()) return fail(Errc::kInvalid, "the delta is for another fingerprint");
  Sketch sketch(this->sketch().shape());
  TRY(read_bands(reader, sketch));
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    std::ranges::transform(
        sketch.band(i), this->sketch().band(i), sketch.band(i).begin(),
        [](std::uint64_t changed, std::uint64_t then) { return changed ^ then; });
  }
  auto made = checked(counts, std::move(sketch));
  if (made && made->version() != result) {
    return fail(Errc::kCorrupt, "the delta does not make what it says");
  }
  return made;
}

}  // namespace samepage::fingerprinter
