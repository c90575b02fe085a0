// The promise under test: whatever its sources do meanwhile, the cache hands out the page that was
// asked for or none. Sources and guests are fakes, scripted to change, fail and disappear.

#include "pagecache/page_cache.h"

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/mutex.h"
#include "pagecache/guest_page_source.h"
#include "tests/fakes/fake_guest_memory.h"

namespace samepage::pagecache {
namespace {

using fakes::FakeGuestMemory;
using fingerprinter::ScannedPage;
using Page = FakeGuestMemory::Page;

SharingDomain domain(const std::string& name, std::uint64_t secret) {
  SharingDomain made;
  made.name = name;
  made.seed.value = secret;
  made.key.bytes[0] = static_cast<std::byte>(secret);
  return made;
}

class PageCacheTest : public ::testing::Test {
 protected:
  /// A guest with these contents in its pages 0, 1, 2, ...
  std::shared_ptr<FakeGuestMemory> guest(std::initializer_list<std::uint64_t> contents) {
    auto memory = std::make_shared<FakeGuestMemory>(1000);
    std::uint64_t page = 0;
    for (const std::uint64_t content : contents) memory->put(page++, content);
    return memory;
  }

  SourceId add(const std::shared_ptr<FakeGuestMemory>& memory) {
    const auto found = scan(*memory, domain_.seed).value();
    return cache_->add(std::make_unique<GuestPageSource>(memory, "web"), found.hashed);
  }

  Result<void> find(std::uint64_t content) {
    const Page wanted = FakeGuestMemory::page_of(content);
    const auto done =
        cache_->find(digest_page(wanted, domain_.key), hash_page(wanted, domain_.seed), page_);
    EXPECT_TRUE(!done || page_ == wanted);
    return done;
  }

  const SharingDomain domain_ = domain("default", 1);
  std::unique_ptr<PageCache> cache_ = PageCache::create({}, domain_).value();
  Page page_{};
};

TEST_F(PageCacheTest, FindsWhatAScanFound) {
  add(guest({11, 12, 13}));

  EXPECT_TRUE(find(11));
  EXPECT_TRUE(find(13));
  EXPECT_EQ(find(14).error().code(), Errc::kNotFound);
  EXPECT_EQ(cache_->size(), 3U);
}

TEST_F(PageCacheTest, APageThatChangedUnderTheIndexIsNotFound) {
  const auto memory = guest({11, 12});
  add(memory);
  memory->put(0, 99);

  EXPECT_EQ(find(11).error().code(), Errc::kNotFound);
  EXPECT_EQ(find(99).error().code(), Errc::kNotFound);
  EXPECT_TRUE(find(12));
}

TEST_F(PageCacheTest, ATornPageIsNotFound) {
  const auto memory = guest({11});
  add(memory);
  memory->held[0].back() ^= std::byte{1};

  EXPECT_EQ(find(11).error().code(), Errc::kNotFound);
}

TEST_F(PageCacheTest, TriesTheNextPlaceWhenThePageChangedInTheFirst) {
  const auto first = guest({11});
  const auto second = guest({0, 11});
  add(first);
  add(second);
  first->put(0, 99);

  EXPECT_TRUE(find(11));
}

TEST_F(PageCacheTest, TriesTheNextPlaceWhenTheFirstGuestEnded) {
  const auto first = guest({11});
  add(first);
  add(guest({5, 6, 11}));
  first->reads_left = 0;

  EXPECT_TRUE(find(11));
}

TEST_F(PageCacheTest, AHashOfAnotherPageFindsNothingWrong) {
  add(guest({11}));
  const Page other = FakeGuestMemory::page_of(12);
  const PageHash hash = hash_page(FakeGuestMemory::page_of(11), domain_.seed);

  EXPECT_EQ(cache_->find(digest_page(other, domain_.key), hash, page_).error().code(),
            Errc::kNotFound);
}

TEST_F(PageCacheTest, DomainsDoNotMatchEachOther) {
  add(guest({11}));
  const SharingDomain other = domain("other", 2);
  const Page page = FakeGuestMemory::page_of(11);
  const PageHash own_hash = hash_page(page, domain_.seed);
  const PageHash other_hash = hash_page(page, other.seed);
  const PageDigest own_digest = digest_page(page, domain_.key);
  const PageDigest other_digest = digest_page(page, other.key);

  EXPECT_EQ(cache_->find(other_digest, other_hash, page_).error().code(), Errc::kNotFound);
  EXPECT_EQ(cache_->find(other_digest, own_hash, page_).error().code(), Errc::kNotFound);
  EXPECT_EQ(cache_->find(own_digest, other_hash, page_).error().code(), Errc::kNotFound);
  EXPECT_FALSE(cache_->filter().lookup(other_hash));
}

TEST_F(PageCacheTest, RemovedSourcesAreNotRead) {
  const auto memory = guest({11, 12});
  const SourceId removed = add(memory);
  add(guest({12}));
  cache_->remove(removed);
  memory->reads_left = 0;

  EXPECT_EQ(memory.use_count(), 1);
  EXPECT_EQ(cache_->size(), 1U);
  EXPECT_EQ(find(11).error().code(), Errc::kNotFound);
  EXPECT_TRUE(find(12));
  cache_->remove(removed);
  EXPECT_EQ(cache_->size(), 1U);
}

TEST_F(PageCacheTest, KeepsToPagesMaxAndUsesFreedRoom) {
  cache_ = PageCache::create({.pages_max = 2}, domain_).value();
  const SourceId first = add(guest({11, 12, 13}));
  EXPECT_EQ(cache_->size(), 2U);
  EXPECT_EQ(find(13).error().code(), Errc::kNotFound);

  cache_->remove(first);
  add(guest({13}));

  EXPECT_TRUE(find(13));
  EXPECT_EQ(cache_->size(), 1U);
}

TEST_F(PageCacheTest, AContentThatFillsAGuestHidesNoOtherPlace) {
  const auto full = guest({});
  for (std::uint64_t page = 0; page < 100; ++page) full->put(page, 11);
  add(full);
  add(guest({11}));
  EXPECT_EQ(cache_->size(), 3U);
  for (std::uint64_t page = 0; page < 100; ++page) full->put(page, 12);

  EXPECT_TRUE(find(11));
}

TEST_F(PageCacheTest, FilterKnowsEveryIndexedHashAndFewOthers) {
  const auto memory = guest({});
  for (std::uint64_t page = 0; page < 1000; ++page) memory->put(page, page + 1);
  add(memory);

  const auto filter = cache_->filter();

  int wrong = 0;
  for (std::uint64_t content = 1; content <= 1000; ++content) {
    EXPECT_TRUE(filter.lookup(hash_page(FakeGuestMemory::page_of(content), domain_.seed)));
    const Page other = FakeGuestMemory::page_of(content + 1'000'000);
    wrong += filter.lookup(hash_page(other, domain_.seed)) ? 1 : 0;
  }
  EXPECT_LT(wrong, 30);
  EXPECT_LE(filter.cells(), 10'000U);
}

TEST_F(PageCacheTest, FilterKeepsToItsLimit) {
  cache_ = PageCache::create({.filter_bytes_max = 64}, domain_).value();
  const auto memory = guest({});
  for (std::uint64_t page = 0; page < 1000; ++page) memory->put(page, page + 1);
  add(memory);

  EXPECT_EQ(cache_->filter().cells(), 64U * 8);
}

TEST_F(PageCacheTest, RefusesToHoldNothing) {
  EXPECT_EQ(PageCache::create({.pages_max = 0}, domain_).error().code(), Errc::kInvalid);
}

TEST_F(PageCacheTest, GuestPagesBeyondItsEndAreNotFound) {
  GuestPageSource source(guest({11}), "web");
  EXPECT_EQ(source.read(1000, page_).error().code(), Errc::kNotFound);
  EXPECT_TRUE(source.read(0, page_));
  EXPECT_EQ(source.name(), "guest web");
}

/// Pages whose content is their number, at first.
class ChangingSource final : public PageSource {
 public:
  explicit ChangingSource(std::atomic<bool>& changed) : changed_(changed) {}

  Result<void> read(std::uint64_t page, PageBuffer destination) override {
    const Page bytes = FakeGuestMemory::page_of(changed_ ? page + 7'000'000 : page + 1);
    std::ranges::copy(bytes, destination.begin());
    return {};
  }
  std::string name() const override { return "changing"; }

 private:
  std::atomic<bool>& changed_;
};

TEST_F(PageCacheTest, FindsWhileSourcesComeGoAndChange) {
  constexpr std::uint64_t kCount = 200;
  std::atomic<bool> changed = false;
  std::atomic<bool> done = false;
  std::atomic<std::uint64_t> found = 0;
  std::vector<ScannedPage> pages;
  std::vector<Page> contents;
  for (std::uint64_t page = 0; page < kCount; ++page) {
    contents.push_back(FakeGuestMemory::page_of(page + 1));
    pages.push_back({page, hash_page(contents.back(), domain_.seed)});
  }
  cache_->add(std::make_unique<ChangingSource>(changed), pages);

  std::vector<std::jthread> finders;
  for (int i = 0; i < 3; ++i) {
    finders.emplace_back([&] {
      Page page;
      for (std::size_t at = 0; !done; at = (at + 1) % kCount) {
        const PageDigest digest = digest_page(contents[at], domain_.key);
        if (!cache_->find(digest, pages[at].hash, page)) continue;
        EXPECT_EQ(page, contents[at]);
        ++found;
      }
    });
  }
  for (int round = 0; round < 200 || found < 1000; ++round) {
    const SourceId added = cache_->add(std::make_unique<ChangingSource>(changed), pages);
    changed = round % 2 == 0;
    EXPECT_TRUE(cache_->filter().lookup(pages[0].hash));
    cache_->remove(added);
  }
  done = true;
  finders.clear();

  EXPECT_EQ(cache_->size(), kCount);
}

}  // namespace
}  // namespace samepage::pagecache
