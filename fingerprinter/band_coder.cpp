#include "fingerprinter/band_coder.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "fingerprinter/sketch_kernels.h"

namespace samepage::fingerprinter {
namespace {

enum Form : std::uint8_t { kDense = 0, kSetCells = 1, kEmptyCells = 2 };

constexpr unsigned kRiceMax = 20;  // Bits below a gap's unary part.

/// The gaps before each set cell (of the complement: before each empty one).
std::vector<std::uint32_t> gaps_of(std::span<const std::uint64_t> band, Form form) {
  std::vector<std::uint32_t> gaps;
  std::size_t next = 0;
  for (std::size_t i = 0; i < band.size(); ++i) {
    for (std::uint64_t word = form == kEmptyCells ? ~band[i] : band[i]; word != 0;
         word &= word - 1) {
      const std::size_t cell = i * 64 + static_cast<std::size_t>(std::countr_zero(word));
      gaps.push_back(static_cast<std::uint32_t>(cell - next));
      next = cell + 1;
    }
  }
  return gaps;
}

std::size_t bits_of(std::span<const std::uint32_t> gaps, unsigned rice) {
  std::size_t bits = gaps.size() * (rice + 1);
  for (const std::uint32_t gap : gaps) bits += gap >> rice;
  return bits;
}

/// The bits of the sum of all unary parts fall and the rest rises: the first minimum is the least.
unsigned best_rice(std::span<const std::uint32_t> gaps) {
  unsigned rice = 0;
  while (rice < kRiceMax && bits_of(gaps, rice + 1) < bits_of(gaps, rice)) ++rice;
  return rice;
}

class BitWriter {
 public:
  void put(std::uint64_t value, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      if (used_ % 8 == 0) bytes_.push_back(std::byte{0});
      if ((value >> i & 1U) != 0) bytes_.back() |= std::byte{1} << (used_ % 8);
      ++used_;
    }
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::size_t used_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  /// Zero bits beyond the end, which `exhausted` then tells.
  unsigned bit() {
    const std::size_t at = used_++;
    if (at / 8 >= bytes_.size()) return 0;
    return std::to_integer<unsigned>(bytes_[at / 8] >> (at % 8)) & 1U;
  }
  std::uint64_t bits(unsigned count) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < count; ++i) value |= std::uint64_t{bit()} << i;
    return value;
  }

  /// All bytes are used, and the bits behind the last one read are zero.
  bool ends_here() {
    if ((used_ + 7) / 8 != bytes_.size()) return false;
    while (used_ % 8 != 0) {
      if (bit() != 0) return false;
    }
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t used_ = 0;
};

Result<void> read_gaps(ByteReader& reader, std::span<std::uint64_t> band) {
  const std::size_t cells = band.size() * 64;
  const unsigned rice = TRY(reader.u8());
  if (rice > kRiceMax) return fail(Errc::kCorrupt, "a band's code is unknown");
  const std::uint64_t count = TRY(reader.varint(cells));
  const std::uint64_t size = TRY(reader.varint(cells));
  BitReader bits(TRY(reader.raw(size)));
  std::uint64_t next = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t cell = next;
    while (bits.bit() != 0 && cell < cells) cell += std::uint64_t{1} << rice;
    cell += bits.bits(rice);
    if (cell >= cells) return fail(Errc::kCorrupt, "a cell is beyond its band");
    band[cell / 64] |= std::uint64_t{1} << (cell % 64);
    next = cell + 1;
  }
  if (!bits.ends_here()) return fail(Errc::kCorrupt, "a band's size is not what it says");
  return {};
}

}  // namespace

void write_band(std::span<const std::uint64_t> band, ByteWriter& writer) {
  const std::size_t cells = band.size() * 64;
  const Form form = count_set(band) * 2 > cells ? kEmptyCells : kSetCells;
  const std::vector<std::uint32_t> gaps = gaps_of(band, form);
  const unsigned rice = best_rice(gaps);
  if (bits_of(gaps, rice) >= cells) {
    writer.u8(kDense);
    for (const std::uint64_t word : band) writer.u64(word);
    return;
  }
  BitWriter bits;
  for (const std::uint32_t gap : gaps) {
    for (std::uint32_t i = 0; i < gap >> rice; ++i) bits.put(1, 1);
    bits.put(0, 1);
    bits.put(gap, rice);
  }
  writer.u8(form);
  writer.u8(static_cast<std::uint8_t>(rice));
  writer.varint(gaps.size());
  writer.varint(bits.bytes().size());
  writer.raw(bits.bytes());
}

Result<void> read_band(ByteReader& reader, std::span<std::uint64_t> band) {
  const std::uint8_t form = TRY(reader.u8());
  switch (form) {
    case kDense:
      for (std::uint64_t& word : band) word = TRY(reader.u64());
      return {};
    case kSetCells:
      return read_gaps(reader, band);
    case kEmptyCells: {
      TRY(read_gaps(reader, band));
      for (std::uint64_t& word : band) word = ~word;
      return {};
    }
    default:
      return fail(Errc::kCorrupt, "a band has an unknown form");
  }
}

}  // namespace samepage::fingerprinter
