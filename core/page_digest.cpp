#include "core/page_digest.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include <blake3.h>

#include "core/check.h"
#include "core/digest_lanes.h"

// BLAKE3's own kernel for many inputs of equal length, which its public interface has not: a
// chunk of 1 KiB or the parent of two chaining values for each input, `blocks` of 64 bytes.
extern "C" void blake3_hash_many(const std::uint8_t* const* inputs, std::size_t num_inputs,
                                 std::size_t blocks, const std::uint32_t key[8],
                                 std::uint64_t counter, bool increment_counter, std::uint8_t flags,
                                 std::uint8_t flags_start, std::uint8_t flags_end,
                                 std::uint8_t* out);

namespace samepage {
namespace {

// BLAKE3's domain flags (its paper, table 3).
enum Flag : std::uint8_t { kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8, kKeyed = 16 };

constexpr std::size_t kChunkBytes = 1024;
constexpr std::size_t kChunks = kPageSize / kChunkBytes;
constexpr std::size_t kLanes = kDigestLanes;  // Narrower units take them in turns.

using Chaining = std::array<std::uint8_t, BLAKE3_OUT_LEN>;
using Inputs = std::array<const std::uint8_t*, kLanes>;

/// Up to kLanes pages: their chunks, then the parents of chunks 0 and 1 and of 2 and 3, then roots.
void digest_some(const std::uint8_t* pages, const DigestKeyWords& key,
                 std::span<PageDigest> digests) {
  const std::size_t count = digests.size();
  std::array<std::array<Chaining, kLanes>, kChunks> chunks;
  Inputs inputs{};
  for (std::size_t chunk = 0; chunk < kChunks; ++chunk) {
    for (std::size_t i = 0; i < count; ++i) {
      inputs.at(i) = pages + i * kPageSize + chunk * kChunkBytes;
    }
    blake3_hash_many(inputs.data(), count, kChunkBytes / BLAKE3_BLOCK_LEN, key.data(), chunk, false,
                     kKeyed, kChunkStart, kChunkEnd, chunks.at(chunk).at(0).data());
  }
  std::array<std::array<std::uint8_t, BLAKE3_BLOCK_LEN>, 2 * kLanes> nodes;
  std::array<Chaining, kLanes> parents;
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t i = 0; i < count; ++i) {
      std::uint8_t* node = nodes.at(i).data();
      std::copy_n(chunks.at(2 * half).at(i).data(), BLAKE3_OUT_LEN, node);
      std::copy_n(chunks.at(2 * half + 1).at(i).data(), BLAKE3_OUT_LEN, node + BLAKE3_OUT_LEN);
      inputs.at(i) = node;
    }
    blake3_hash_many(inputs.data(), count, 1, key.data(), 0, false, kKeyed | kParent, 0, 0,
                     parents.at(0).data());
    for (std::size_t i = 0; i < count; ++i) {
      std::copy_n(parents.at(i).data(), BLAKE3_OUT_LEN,
                  nodes.at(kLanes + i).data() + half * BLAKE3_OUT_LEN);
    }
  }
  for (std::size_t i = 0; i < count; ++i) inputs.at(i) = nodes.at(kLanes + i).data();
  blake3_hash_many(inputs.data(), count, 1, key.data(), 0, false, kKeyed | kParent | kRoot, 0, 0,
                   reinterpret_cast<std::uint8_t*>(digests.data()));
}

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

void digest_pages(std::span<const std::byte> pages, const DigestKey& key,
                  std::span<PageDigest> digests) {
  CHECK(pages.size() == digests.size() * kPageSize);
  DigestKeyWords words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    words.at(i) = 0;
    for (std::size_t byte = 0; byte < 4; ++byte) {
      words.at(i) |= std::to_integer<std::uint32_t>(key.bytes.at(4 * i + byte)) << (8 * byte);
    }
  }
  std::size_t at = 0;
  if (has_digest_lanes()) {
    for (; at + kLanes <= digests.size(); at += kLanes) {
      digest_lanes(pages.data() + at * kPageSize, words, digests.subspan(at).first<kDigestLanes>());
    }
  }
  for (; at < digests.size(); at += kLanes) {
    digest_some(octets(pages.data()) + at * kPageSize, words,
                digests.subspan(at, std::min(kLanes, digests.size() - at)));
  }
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
