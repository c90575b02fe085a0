// The promises under test: a page's two names depend on every byte and on the domain's secret, and
// the stream MAC of a prefix does not depend on how the prefix was cut.

#include <array>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "core/page_digest.h"
#include "core/page_hash.h"

namespace samepage {
namespace {

using Page = std::array<std::byte, kPageSize>;

TEST(PageTest, IsZeroSeesEveryByte) {
  Page page{};
  EXPECT_TRUE(is_zero(page));
  for (const std::size_t at : {std::size_t{0}, std::size_t{1}, kPageSize / 2, kPageSize - 1}) {
    page[at] = std::byte{1};
    EXPECT_FALSE(is_zero(page)) << at;
    page[at] = std::byte{0};
  }
  page.fill(std::byte{7});
  EXPECT_FALSE(is_zero(page));
}

TEST(PageTest, NamesDifferByContentAndBySecret) {
  Page page{};
  Page other{};
  other.back() = std::byte{1};
  DigestKey key;
  DigestKey other_key;
  other_key.bytes[0] = std::byte{1};

  EXPECT_NE(hash_page(page, {1}), hash_page(other, {1}));
  EXPECT_NE(hash_page(page, {1}), hash_page(page, {2}));
  EXPECT_NE(digest_page(page, key), digest_page(other, key));
  EXPECT_NE(digest_page(page, key), digest_page(page, other_key));
}

TEST(PageTest, EveryKernelHashesAlike) {
  std::array<PageHash, 5> hashes;
  std::vector<std::byte> pages(hashes.size() * kPageSize);
  for (std::size_t i = kPageSize; i < pages.size(); ++i)
    pages[i] = static_cast<std::byte>(i * i / 89);
  for (const page_hash_kernels::Kernel kernel : page_hash_kernels::supported()) {
    for (const HashSeed seed : {HashSeed{0}, HashSeed{1}, HashSeed{0xFFFF'0000'5EED'0001}}) {
      PageHasher(seed, kernel).hash(pages, hashes);
      for (std::size_t i = 0; i < hashes.size(); ++i) {
        EXPECT_EQ(hashes[i], hash_page(PageView(&pages[i * kPageSize], kPageSize), seed)) << i;
      }
    }
  }
}

TEST(PageTest, DigestIsKeyedBlake3) {
  // The reference implementation's vector for an empty input under this key.
  DigestKey key;
  const std::string secret = "whats the Elvish word for friend";
  std::memcpy(key.bytes.data(), secret.data(), key.bytes.size());
  EXPECT_EQ(to_hex(StreamMac(key).current()),
            "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26");
}

TEST(PageTest, ManyPagesAtOnceHaveTheDigestsOfEach) {
  DigestKey key;
  key.bytes[5] = std::byte{9};
  for (const std::size_t count : {1U, 2U, 15U, 16U, 17U, 32U, 40U}) {
    std::vector<std::byte> pages(count * kPageSize);
    for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<std::byte>(i * i / 97);
    std::vector<PageDigest> digests(count);
    digest_pages(pages, key, digests);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(digests[i], digest_page(PageView(&pages[i * kPageSize], kPageSize), key)) << i;
    }
  }
}

TEST(PageTest, StreamMacDoesNotDependOnTheCut) {
  Page page{};
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::byte>(i * 7);
  const std::span<const std::byte> bytes(page);
  StreamMac whole{DigestKey{}};
  StreamMac parts{DigestKey{}};

  whole.update(bytes);
  parts.update(bytes.first(1));
  parts.update(bytes.subspan(1, 1500));
  EXPECT_NE(parts.current(), whole.current());
  parts.update(bytes.subspan(1501));

  EXPECT_EQ(parts.current(), whole.current());
  EXPECT_EQ(whole.current(), digest_page(page, DigestKey{}));
}

}  // namespace
}  // namespace samepage
