#include "fingerprinter/bloom_filter.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint32_t kMagic = 0x31464253;  // "SBF1", little-endian.
constexpr unsigned kMax = 16;
constexpr std::size_t kWordBits = 64;

/// The cells of one hash: (hash + i * step) mod cells. An odd step never repeats the same cell at
/// once, and the swapped halves make it independent of the low bits, which decide the first cell.
class Cells {
 public:
  Cells(PageHash hash, std::size_t cells)
      : position_(hash.value), step_(std::rotl(hash.value, 32) | 1U), cells_(cells) {}

  std::size_t next() {
    const std::uint64_t cell = position_ % cells_;
    position_ += step_;
    return cell;
  }

 private:
  std::uint64_t position_;
  std::uint64_t step_;
  std::uint64_t cells_;
};

}  // namespace

BloomFilter::BloomFilter(std::size_t cells, unsigned k)
    : k_(k), words_(std::max<std::size_t>(1, cells / kWordBits + (cells % kWordBits != 0))) {
  CHECK(k >= 1);
  CHECK(k <= kMax);
}

BloomFilter BloomFilter::sized_for(std::size_t count, double false_positive_rate,
                                   std::size_t cells_max) {
  CHECK(false_positive_rate > 0);
  CHECK(false_positive_rate < 1);
  const double hashes = static_cast<double>(std::max<std::size_t>(count, 1));
  const double wanted =
      -hashes * std::log(false_positive_rate) / (std::numbers::ln2 * std::numbers::ln2);
  const std::size_t limit = cells_max - cells_max % kWordBits;
  const double cells = std::ceil(std::min(wanted, static_cast<double>(limit)));
  const double k = std::clamp(std::round(cells / hashes * std::numbers::ln2), 1.0, double{kMax});
  return {static_cast<std::size_t>(cells), static_cast<unsigned>(k)};
}

void BloomFilter::add(PageHash hash) {
  Cells next(hash, cells());
  for (unsigned i = 0; i < k_; ++i) {
    const std::size_t cell = next.next();
    words_[cell / kWordBits] |= std::uint64_t{1} << (cell % kWordBits);
  }
}

bool BloomFilter::lookup(PageHash hash) const {
  Cells next(hash, cells());
  for (unsigned i = 0; i < k_; ++i) {
    const std::size_t cell = next.next();
    if ((words_[cell / kWordBits] >> (cell % kWordBits) & 1U) == 0) return false;
  }
  return true;
}

std::vector<std::byte> BloomFilter::serialize() const {
  ByteWriter writer;
  writer.u32(kMagic);
  writer.u8(static_cast<std::uint8_t>(k_));
  writer.varint(words_.size());
  for (const std::uint64_t word : words_) writer.u64(word);
  return writer.take();
}

Result<BloomFilter> BloomFilter::parse(std::span<const std::byte> bytes, std::size_t bytes_max) {
  if (bytes.size() > bytes_max) return fail(Errc::kCorrupt, "the filter exceeds its limit");
  ByteReader reader(bytes);
  if (TRY(reader.u32()) != kMagic) return fail(Errc::kCorrupt, "these bytes are no Bloom filter");
  const unsigned k = TRY(reader.u8());
  if (k < 1 || k > kMax) return fail(Errc::kCorrupt, "the filter's k is not within 1 and 16");

  const std::size_t words = TRY(reader.varint());
  if (words == 0 || words != reader.remaining() / sizeof(std::uint64_t) ||
      reader.remaining() % sizeof(std::uint64_t) != 0) {
    return fail(Errc::kCorrupt, "the filter's size is not what it says");
  }
  BloomFilter filter(words * kWordBits, k);
  for (std::uint64_t& word : filter.words_) word = TRY(reader.u64());
  return filter;
}

}  // namespace samepage::fingerprinter
