#include "fingerprinter/fingerprint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "fingerprinter/overlap.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint32_t kMagic = 0x31465053;  // "SPF1", little-endian.
constexpr std::uint64_t kPagesMax = std::uint64_t{1} << 40U;
constexpr std::uint8_t kDense = 0;
constexpr std::uint8_t kSparse = 1;

std::uint64_t count_distinct(const Scan& scan) {
  std::vector<PageHash> hashes;
  hashes.reserve(scan.hashed.size());
  for (const ScannedPage& page : scan.hashed) hashes.push_back(page.hash);
  std::ranges::sort(hashes);
  return static_cast<std::uint64_t>(std::unique(hashes.begin(), hashes.end()) - hashes.begin());
}

PageCounts counts_of(const Scan& scan) {
  PageCounts counts{.pages = scan.pages, .zero = scan.zero, .unique = count_distinct(scan)};
  counts.duplicate = scan.hashed.size() - counts.unique;
  return counts;
}

void write_dense(const Sketch::Band& band, ByteWriter& writer) {
  writer.u8(kDense);
  for (const std::uint64_t word : band.words) writer.u64(word);
}

void write_sparse(const Sketch::Band& band, std::size_t occupied, ByteWriter& writer) {
  writer.u8(kSparse);
  writer.varint(occupied);
  std::size_t next = 0;
  for (std::size_t i = 0; i < Sketch::kBandWords; ++i) {
    for (std::uint64_t word = band.words[i]; word != 0; word &= word - 1) {
      const std::size_t cell = i * 64 + static_cast<std::size_t>(std::countr_zero(word));
      writer.varint(cell - next);
      next = cell + 1;
    }
  }
}

void write_band(const Sketch::Band& band, std::size_t occupied, ByteWriter& writer) {
  ByteWriter sparse;
  write_sparse(band, occupied, sparse);
  if (sparse.size() <= sizeof(band.words)) {
    writer.raw(sparse.view());
  } else {
    write_dense(band, writer);
  }
}

Result<void> read_dense(ByteReader& reader, Sketch::Band& band) {
  for (std::uint64_t& word : band.words) word = TRY(reader.u64());
  return {};
}

Result<void> read_sparse(ByteReader& reader, Sketch::Band& band) {
  const std::uint64_t count = TRY(reader.varint(Sketch::kBandCells));
  std::uint64_t next = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t cell = next + TRY(reader.varint(Sketch::kBandCells));
    if (cell >= Sketch::kBandCells) return fail(Errc::kCorrupt, "a cell is beyond its band");
    band.words[cell / 64] |= std::uint64_t{1} << (cell % 64);
    next = cell + 1;
  }
  return {};
}

Result<void> read_band(ByteReader& reader, Sketch::Band& band) {
  const std::uint8_t form = TRY(reader.u8());
  if (form == kDense) return read_dense(reader, band);
  if (form == kSparse) return read_sparse(reader, band);
  return fail(Errc::kCorrupt, "a band has an unknown form");
}

Result<PageCounts> read_counts(ByteReader& reader) {
  PageCounts counts;
  counts.pages = TRY(reader.varint(kPagesMax));
  counts.zero = TRY(reader.varint(kPagesMax));
  counts.unique = TRY(reader.varint(kPagesMax));
  counts.duplicate = TRY(reader.varint(kPagesMax));
  if (counts.present() > counts.pages || (counts.unique == 0 && counts.duplicate != 0)) {
    return fail(Errc::kCorrupt, "the page counts contradict each other");
  }
  return counts;
}

}  // namespace

Fingerprint::Fingerprint(const PageCounts& counts, std::unique_ptr<Data> data) : counts_(counts) {
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    data->occupied[i] = count_cells(data->sketch.band(i));
  }
  data_ = std::move(data);
}

Fingerprint Fingerprint::of(const Scan& scan) {
  auto data = std::make_unique<Data>();
  for (const ScannedPage& page : scan.hashed) data->sketch.add(page.hash);
  return {counts_of(scan), std::move(data)};
}

Fingerprint Fingerprint::merge(std::span<const Fingerprint> fingerprints) {
  auto data = std::make_unique<Data>();
  PageCounts counts;
  for (const Fingerprint& one : fingerprints) {
    data->sketch.merge(one.sketch());
    counts.pages += one.counts_.pages;
    counts.zero += one.counts_.zero;
    counts.unique += one.counts_.unique;
    counts.duplicate += one.counts_.duplicate;
  }
  const auto distinct = static_cast<std::uint64_t>(std::llround(footprint(fingerprints).pages));
  counts.duplicate += counts.unique - distinct;
  counts.unique = distinct;
  return {counts, std::move(data)};
}

std::vector<std::byte> Fingerprint::serialize() const {
  ByteWriter writer;
  writer.u32(kMagic);
  writer.varint(counts_.pages);
  writer.varint(counts_.zero);
  writer.varint(counts_.unique);
  writer.varint(counts_.duplicate);
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    write_band(sketch().band(i), occupied(i), writer);
  }
  return writer.take();
}

Result<Fingerprint> Fingerprint::parse(std::span<const std::byte> bytes) {
  if (bytes.size() > kBytesMax) return fail(Errc::kCorrupt, "the fingerprint exceeds its limit");
  ByteReader reader(bytes);
  if (TRY(reader.u32()) != kMagic) return fail(Errc::kCorrupt, "these bytes are no fingerprint");
  const PageCounts counts = TRY(read_counts(reader));
  auto data = std::make_unique<Data>();
  for (std::size_t i = 0; i < Sketch::kBands; ++i) TRY(read_band(reader, data->sketch.band(i)));
  if (!reader.at_end()) return fail(Errc::kCorrupt, "bytes follow the fingerprint");

  Fingerprint fingerprint(counts, std::move(data));
  std::size_t occupied = 0;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) occupied += fingerprint.occupied(i);
  if (occupied > counts.unique) return fail(Errc::kCorrupt, "more cells are set than pages exist");
  return fingerprint;
}

}  // namespace samepage::fingerprinter
