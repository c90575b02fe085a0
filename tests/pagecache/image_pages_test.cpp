// The promise under test: a guest's pages that came from a disk image of this host are found in the
// image, and only by the sharing domain that the image belongs to.

#include "pagecache/image_pages.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/imagestore/scratch.h"

namespace samepage::pagecache {
namespace {

using imagestore::Scratch;

class ImagePagesTest : public ::testing::Test {
 protected:
  ImagePagesTest() : bytes_(imagestore::random_bytes(40 * kPageSize, 3)) {
    std::fill_n(bytes_.begin() + 5 * kPageSize, kPageSize, std::byte{0});
    domain_.seed.value = 77;
    domain_.key.bytes[1] = std::byte{4};
  }

  void import(const std::string& name) {
    const auto store = imagestore::open_store(scratch_ / "store");
    imagestore::write_file(scratch_ / "disk", bytes_);
    ASSERT_TRUE(imagestore::import_file(*store, scratch_ / "disk", name));
  }

  ImagePages::Options options() {
    ImagePages::Options options;
    options.store.folder = scratch_ / "store";
    return options;
  }

  std::size_t found(const ImagePages& images, const SharingDomain& domain) {
    const auto cache = PageCache::create({}, domain).value();
    images.add_to(*cache, domain);
    std::size_t found = 0;
    for (std::size_t at = 0; at < bytes_.size(); at += kPageSize) {
      const PageView wanted = std::span<const std::byte>(bytes_).subspan(at).first<kPageSize>();
      std::array<std::byte, kPageSize> page{};
      if (!cache->find(digest_page(wanted, domain.key), hash_page(wanted, domain.seed), page)) {
        continue;
      }
      EXPECT_TRUE(std::ranges::equal(page, wanted));
      ++found;
    }
    return found;
  }

  Scratch scratch_;
  std::vector<std::byte> bytes_;
  SharingDomain domain_;
};

TEST_F(ImagePagesTest, FindsEveryPageThatIsNotZero) {
  import("debian");
  ImagePages images(options());
  ASSERT_TRUE(images.refresh(domain_, {}));
  EXPECT_EQ(found(images, domain_), 39U);
}

TEST_F(ImagePagesTest, FollowsTheImagesThatComeAndGo) {
  import("debian");
  ImagePages images(options());
  ASSERT_TRUE(images.refresh(domain_, {}));
  std::ranges::copy(imagestore::random_bytes(kPageSize, 9), bytes_.begin());
  EXPECT_EQ(found(images, domain_), 38U);
  import("debian13");
  ASSERT_TRUE(images.refresh(domain_, {}));
  EXPECT_EQ(found(images, domain_), 39U);
  std::filesystem::remove_all(scratch_ / "store");
  import("other");
  ASSERT_TRUE(images.refresh(domain_, {}));
  EXPECT_EQ(found(images, domain_), 39U);
}

TEST_F(ImagePagesTest, AnotherDomainFindsNothing) {
  import("debian");
  ImagePages images(options());
  SharingDomain tenant = domain_;
  tenant.name = "tenant7";
  ASSERT_TRUE(images.refresh(tenant, {}));
  EXPECT_EQ(found(images, tenant), 0U);
  ASSERT_TRUE(images.refresh(domain_, {}));
  EXPECT_EQ(found(images, tenant), 0U);
}

TEST_F(ImagePagesTest, KeepsItsBoundAndStopsWhenAsked) {
  import("debian");
  ImagePages::Options few = options();
  few.pages_max = 7;
  ImagePages images(few);
  ASSERT_TRUE(images.refresh(domain_, {}));
  EXPECT_EQ(found(images, domain_), 7U);

  ImagePages stopped(options());
  std::stop_source stop;
  stop.request_stop();
  ASSERT_TRUE(stopped.refresh(domain_, stop.get_token()));
  EXPECT_EQ(found(stopped, domain_), 0U);
}

TEST_F(ImagePagesTest, AHostWithoutAStoreHasNone) {
  ImagePages images(options());
  EXPECT_EQ(images.refresh(domain_, {}).error().code(), Errc::kNotFound);
  EXPECT_EQ(found(images, domain_), 0U);
}

}  // namespace
}  // namespace samepage::pagecache
