// The promise under test: an extent source delivers an extent whole and verified, or says why not,
// and its buffer is empty then.

#include "imagestore/extent_source.h"

#include <gtest/gtest.h>

#include "imagestore/extent_copy.h"
#include "tests/fakes/fake_origin.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

class ExtentSourceTest : public testing::Test {
 protected:
  ObjectName put(std::vector<std::byte> pages) {
    Extent extent;
    extent.pages = std::move(pages);
    extent.digests.resize(extent.pages.size() / kPageSize);
    digest_pages(extent.pages, keys_.pages, extent.digests);
    const EncodedExtent encoded = encode_extent(extent, keys_);
    EXPECT_TRUE(origin_.put(encoded.name, encoded.bytes));
    return encoded.name;
  }

  Result<void> fetch(const ObjectName& name) {
    return fetch_extent(source_, name, *buffer_,
                        std::chrono::steady_clock::now() + std::chrono::seconds(5));
  }

  const DomainKeys keys_{DigestKey{}};
  fakes::FakeOrigin origin_;
  OriginExtents source_{origin_, keys_, 4};
  std::unique_ptr<ExtentBuffer> buffer_ = ExtentBuffer::create();
};

TEST_F(ExtentSourceTest, DeliversPlainAndCompressedExtents) {
  for (const auto& pages : {random_bytes(5 * kPageSize, 1), disk_bytes(32, 2),
                            std::vector<std::byte>(kPageSize, std::byte{3})}) {
    ASSERT_TRUE(fetch(put(pages)));
    EXPECT_EQ(buffer_->count(), pages.size() / kPageSize);
    EXPECT_TRUE(std::ranges::equal(buffer_->pages(), pages));
    EXPECT_EQ(buffer_->find(buffer_->digests().back()).has_value(), true);
    EXPECT_EQ(buffer_->find(PageDigest{}), std::nullopt);
  }
}

TEST_F(ExtentSourceTest, VerifiesWhatWasReadInPlace) {
  const auto pages = random_bytes(7 * kPageSize, 4);
  const ObjectName name = put(pages);
  const auto& object = origin_.objects.at(name);
  const auto raw = buffer_->raw(7);
  ASSERT_TRUE(raw);
  ASSERT_EQ(raw->size(), object.size());
  std::ranges::copy(object, raw->begin());
  ASSERT_TRUE(buffer_->verify_raw(name, keys_));
  EXPECT_TRUE(std::ranges::equal(buffer_->pages(), pages));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer_->pages().data()) % kPageSize, 0U);

  raw->back() ^= std::byte{1};
  const auto damaged = buffer_->verify_raw(name, keys_);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code(), Errc::kCorrupt);
  EXPECT_EQ(buffer_->count(), 0U);
  EXPECT_FALSE(buffer_->raw(0));
  EXPECT_FALSE(buffer_->raw(kExtentPagesMax + 1));
}

TEST_F(ExtentSourceTest, CopiesAndSumsInOnePassWhateverTheSize) {
  const ObjectName name = put(random_bytes(kPageSize, 5));
  for (const std::size_t size : {0UL, 1UL, 63UL, 200UL, 2'048UL, 2'049UL, 5'000UL, 132'121UL}) {
    const auto from = random_bytes(size, size);
    std::vector<std::byte> into(size);
    EXPECT_EQ(copy_extent(name, from, into), extent_checksum(name, from)) << size;
    EXPECT_EQ(into, from) << size;
  }
}

TEST_F(ExtentSourceTest, SaysWhatIsMissingOrDamaged) {
  const auto missing = fetch(ObjectName{});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);

  const ObjectName name = put(disk_bytes(8, 5));
  origin_.objects.at(name)[100] ^= std::byte{4};
  const auto damaged = fetch(name);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code(), Errc::kCorrupt);
  EXPECT_EQ(buffer_->count(), 0U);
}

TEST_F(ExtentSourceTest, TakesBatchesWholeOrNotAtAll) {
  const ObjectName name = put(random_bytes(kPageSize, 6));
  std::vector<std::unique_ptr<ExtentBuffer>> buffers;
  std::vector<ExtentFetch> fetches;
  for (std::uint64_t tag = 0; tag < 5; ++tag) {
    buffers.push_back(ExtentBuffer::create());
    fetches.push_back({.tag = tag, .name = name, .into = buffers.back().get()});
  }
  const auto refused = source_.start(fetches);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
  EXPECT_EQ(source_.under_way(), 0U);

  fetches.pop_back();
  ASSERT_TRUE(source_.start(fetches));
  EXPECT_EQ(source_.under_way(), 4U);
  std::size_t done = 0;
  while (source_.under_way() > 0) done += source_.poll(Deadline::min()).size();
  EXPECT_EQ(done, 4U);
}

}  // namespace
}  // namespace samepage::imagestore
