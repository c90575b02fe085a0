#include "core/page_digest.h"

#include <cstring>
#include <new>

#include <blake3.h>

namespace samepage {
namespace {

static_assert(BLAKE3_KEY_LEN == sizeof(DigestKey::bytes));
static_assert(BLAKE3_OUT_LEN == sizeof(PageDigest::bytes));

const std::uint8_t* octets(const std::byte* bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes);
}

PageDigest finish(const blake3_hasher& hasher) {
  PageDigest digest;
  blake3_hasher_finalize(&hasher, reinterpret_cast<std::uint8_t*>(digest.bytes.data()),
                         digest.bytes.size());
  return digest;
}

}  // namespace

PageDigest digest_page(PageView page, const DigestKey& key) {
  blake3_hasher hasher;
  blake3_hasher_init_keyed(&hasher, octets(key.bytes.data()));
  blake3_hasher_update(&hasher, page.data(), page.size());
  return finish(hasher);
}

std::string to_hex(const PageDigest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.bytes.size());
  for (const std::byte byte : digest.bytes) {
    text.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4U]);
    text.push_back(kDigits[std::to_integer<unsigned>(byte) & 15U]);
  }
  return text;
}

StreamMac::StreamMac(const DigestKey& key) {
  static_assert(sizeof(state_) >= sizeof(blake3_hasher));
  static_assert(alignof(blake3_hasher) <= 8);
  auto* hasher = new (state_.data()) blake3_hasher;
  blake3_hasher_init_keyed(hasher, octets(key.bytes.data()));
}

void StreamMac::update(std::span<const std::byte> bytes) {
  auto* hasher = std::launder(reinterpret_cast<blake3_hasher*>(state_.data()));
  blake3_hasher_update(hasher, bytes.data(), bytes.size());
}

PageDigest StreamMac::current() const {
  return finish(*std::launder(reinterpret_cast<const blake3_hasher*>(state_.data())));
}

}  // namespace samepage

std::size_t std::hash<samepage::PageDigest>::operator()(
    const samepage::PageDigest& digest) const noexcept {
  std::size_t value = 0;
  std::memcpy(&value, digest.bytes.data(), sizeof(value));
  return value;
}
