#include "migrator/packed_bytes.h"

#include <cstring>
#include <string>

#include "core/check.h"

namespace samepage::migrator {
namespace {

enum Coding : std::uint8_t { kRaw = 0, kZstd = 1 };

// Unpacking costs the target time before its guest may run; a few percent are not worth it.
bool pays(std::size_t packed, std::size_t plain) {
  return packed < plain - plain / 32;
}

}  // namespace

BytePacker::BytePacker() : zstd_(ZSTD_createCCtx()) {
  CHECK(zstd_ != nullptr);
}

bool BytePacker::pack(std::span<const std::byte> bytes, int zstd_level, ByteWriter& message) {
  const auto tail = packed_.bytes(packed_bytes_max(bytes.size()));
  const auto [size, packed] = pack(bytes, zstd_level, message, tail);
  message.raw(tail.first(size));
  return packed;
}

BytePacker::Packed BytePacker::pack(std::span<const std::byte> bytes, int zstd_level,
                                    ByteWriter& head, std::span<std::byte> tail) {
  CHECK(tail.size() >= packed_bytes_max(bytes.size()));
  if (zstd_level != kPackNothing && !bytes.empty()) {
    const std::size_t size = ZSTD_compressCCtx(zstd_.get(), tail.data(), tail.size(), bytes.data(),
                                               bytes.size(), zstd_level);
    if (ZSTD_isError(size) == 0 && pays(size, bytes.size())) {
      head.u8(kZstd);
      head.varint(bytes.size());
      head.varint(size);
      return {.size = size, .packed = true};
    }
  }
  announce_plain(bytes.size(), head);
  if (!bytes.empty()) std::memcpy(tail.data(), bytes.data(), bytes.size());
  return {.size = bytes.size(), .packed = false};
}

void BytePacker::announce_plain(std::size_t size, ByteWriter& message) {
  message.u8(kRaw);
  message.varint(size);
}

ByteUnpacker::ByteUnpacker() : zstd_(ZSTD_createDCtx()) {
  CHECK(zstd_ != nullptr);
}

Result<std::span<const std::byte>> ByteUnpacker::unpack(ByteReader& message, std::size_t size_max) {
  const auto coding = TRY(message.u8());
  if (coding == kRaw) {
    const auto plain_size = TRY(message.varint(size_max));
    return message.raw(plain_size);
  }
  if (coding != kZstd) return fail(Errc::kCorrupt, "bytes of an unknown coding");

  const auto size = TRY(message.varint(size_max));
  const auto packed_size = TRY(message.varint(message.remaining()));
  const auto packed = TRY(message.raw(packed_size));
  const auto plain = plain_.bytes(size);
  const std::size_t unpacked =
      ZSTD_decompressDCtx(zstd_.get(), plain.data(), size, packed.data(), packed.size());
  if (ZSTD_isError(unpacked) != 0) {
    return fail(Errc::kCorrupt, std::string("zstd: ") + ZSTD_getErrorName(unpacked));
  }
  if (unpacked != size) return fail(Errc::kCorrupt, "packed bytes of the wrong size");
  return plain;
}

}  // namespace samepage::migrator
