#include "migrator/packed_bytes.h"

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

BytePacker::BytePacker(int zstd_level) : zstd_level_(zstd_level), zstd_(ZSTD_createCCtx()) {
  CHECK(zstd_ != nullptr);
}

void BytePacker::pack(std::span<const std::byte> bytes, ByteWriter& message) {
  packed_.resize(ZSTD_compressBound(bytes.size()));
  const std::size_t size = ZSTD_compressCCtx(zstd_.get(), packed_.data(), packed_.size(),
                                             bytes.data(), bytes.size(), zstd_level_);
  const bool packed = ZSTD_isError(size) == 0 && pays(size, bytes.size());
  const std::span<const std::byte> chosen = packed ? std::span(packed_).first(size) : bytes;
  message.u8(packed ? kZstd : kRaw);
  message.varint(chosen.size());
  message.raw(chosen);
}

ByteUnpacker::ByteUnpacker() : zstd_(ZSTD_createDCtx()) {
  CHECK(zstd_ != nullptr);
}

Result<std::vector<std::byte>> ByteUnpacker::unpack(ByteReader& message, std::size_t size) {
  const auto coding = TRY(message.u8());
  const auto packed_size = TRY(message.varint(message.remaining()));
  const auto packed = TRY(message.raw(packed_size));
  if (coding == kRaw) {
    if (packed.size() != size) return fail(Errc::kCorrupt, "plain bytes of the wrong size");
    return std::vector<std::byte>(packed.begin(), packed.end());
  }
  if (coding != kZstd) return fail(Errc::kCorrupt, "bytes of an unknown coding");

  std::vector<std::byte> plain(size);
  const std::size_t unpacked =
      ZSTD_decompressDCtx(zstd_.get(), plain.data(), plain.size(), packed.data(), packed.size());
  if (ZSTD_isError(unpacked) != 0) {
    return fail(Errc::kCorrupt, std::string("zstd: ") + ZSTD_getErrorName(unpacked));
  }
  if (unpacked != size) return fail(Errc::kCorrupt, "packed bytes of the wrong size");
  return plain;
}

}  // namespace samepage::migrator
