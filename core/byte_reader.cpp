#include "core/byte_reader.h"

namespace samepage {

Result<std::span<const std::byte>> ByteReader::raw(std::size_t size) {
  if (size > bytes_.size()) return fail(Errc::kCorrupt, "the input ends too early");
  const auto taken = bytes_.first(size);
  bytes_ = bytes_.subspan(size);
  return taken;
}

template <class T>
Result<T> ByteReader::fixed() {
  const auto bytes = TRY(raw(sizeof(T)));
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(std::to_integer<T>(bytes[i])) << (8 * i));
  }
  return value;
}

Result<std::uint8_t> ByteReader::u8() {
  const auto bytes = TRY(raw(1));
  return std::to_integer<std::uint8_t>(bytes[0]);
}

Result<std::uint32_t> ByteReader::u32() {
  return fixed<std::uint32_t>();
}

Result<std::uint64_t> ByteReader::u64() {
  return fixed<std::uint64_t>();
}

Result<std::uint64_t> ByteReader::varint(std::uint64_t max) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const std::uint64_t part = TRY(u8());
    if (shift == 63 && part > 1) break;
    value |= (part & 0x7FU) << shift;
    if (part < 0x80) {
      if (part == 0 && shift > 0) return fail(Errc::kCorrupt, "a number is longer than it need be");
      if (value > max) return fail(Errc::kCorrupt, "a number exceeds its limit");
      return value;
    }
  }
  return fail(Errc::kCorrupt, "a number is longer than 64 bits");
}

Result<std::string> ByteReader::text(std::size_t size_max) {
  const auto size = TRY(varint(size_max));
  const auto bytes = TRY(raw(size));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace samepage
