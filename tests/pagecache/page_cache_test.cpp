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
    auto done =
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

/// Looks pages up by their contents, all at once.
class Lookup {
 public:
  explicit Lookup(const SharingDomain& domain) : domain_(domain) {}

  void want(std::uint64_t content, std::uint64_t number = 0) {
    const Page page = FakeGuestMemory::page_of(content);
    contents_.push_back(page);
    pages_.push_back(std::make_unique<Page>());
    wanted.push_back({.hash = hash_page(page, domain_.seed),
                      .number = number,
                      .to = *pages_.back(),
                      .found = false,
                      .source = {},
                      .page = 0});
  }
  std::vector<bool> found(PageCache& cache) {
    cache.find_many(wanted);
    std::vector<bool> found;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      found.push_back(wanted[i].found);
      EXPECT_TRUE(!wanted[i].found || *pages_[i] == contents_[i]);
    }
    return found;
  }

  std::vector<WantedPage> wanted;

 private:
  const SharingDomain domain_;
  std::vector<Page> contents_;
  std::vector<std::unique_ptr<Page>> pages_;
};

TEST_F(PageCacheTest, FindsManyPagesAtOnce) {
  const auto first = guest({11, 12, 13, 14});
  const SourceId first_id = add(first);
  const auto second = guest({0, 21, 11});
  add(second);
  first->put(1, 99);
  Lookup lookup(domain_);
  for (const std::uint64_t content : {14U, 11U, 12U, 21U, 77U, 11U, 13U}) lookup.want(content);

  EXPECT_EQ(lookup.found(*cache_), (std::vector<bool>{true, true, false, true, false, true, true}));
  EXPECT_EQ(lookup.wanted[0].source, first_id);
  EXPECT_EQ(lookup.wanted[0].page, 3U);
}

TEST_F(PageCacheTest, ManyPagesAreFoundInTheNextPlaceToo) {
  const auto first = guest({11, 12});
  const auto second = guest({0, 12, 11});
  add(first);
  add(second);
  first->reads_left = 0;
  Lookup lookup(domain_);
  lookup.want(11);
  lookup.want(12);

  EXPECT_EQ(lookup.found(*cache_), (std::vector<bool>{true, true}));
}

TEST_F(PageCacheTest, PrefersThePlaceOfTheSameNumber) {
  add(guest({11, 5}));
  const SourceId second = add(guest({6, 7, 11}));
  Lookup lookup(domain_);
  lookup.want(11, 2);

  EXPECT_EQ(lookup.found(*cache_), std::vector<bool>{true});
  EXPECT_EQ(lookup.wanted[0].source, second);
}

TEST_F(PageCacheTest, ReadsPagesWhereTheyLieUnlessTheyChanged) {
  const auto memory = guest({11, 12, 0, 13});
  const SourceId id = add(memory);
  const auto checks = cache_->checks(id);
  memory->put(1, 99);
  std::array<Page, 6> to{};
  std::vector<PlacedPage> placed;
  for (const std::uint64_t page : {3U, 0U, 1U, 2U, 700U, 5000U}) {
    placed.push_back({.page = page, .to = to.at(placed.size())});
  }
  cache_->read_placed(id, placed);

  EXPECT_EQ(checks.size(), 4U);
  EXPECT_EQ(checks[3], check_of(hash_page(FakeGuestMemory::page_of(13), domain_.seed)));
  std::vector<bool> found;
  for (const PlacedPage& page : placed) found.push_back(page.found);
  EXPECT_TRUE(found[0] && found[1]);
  EXPECT_FALSE(found[2] || found[4] || found[5]);
  EXPECT_EQ(to[0], FakeGuestMemory::page_of(13));
  EXPECT_EQ(to[1], FakeGuestMemory::page_of(11));

  cache_->remove(id);
  EXPECT_TRUE(cache_->checks(id).empty());
  for (PlacedPage& page : placed) page.found = false;
  cache_->read_placed(id, placed);
  EXPECT_FALSE(placed[0].found);
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

/// Looks pages up, over and over, and checks every page that it gets.
class Finder {
 public:
  Finder(PageCache& cache, const SharingDomain& domain, std::uint64_t count)
      : cache_(cache), domain_(domain), count_(count) {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }

  std::uint64_t found() const { return found_; }

 private:
  void run(const std::stop_token& stop) {
    Page page;
    for (std::uint64_t at = 0; !stop.stop_requested(); at = (at + 1) % count_) {
      const Page wanted = FakeGuestMemory::page_of(at + 1);
      const PageHash hash = hash_page(wanted, domain_.seed);
      if (!cache_.find(digest_page(wanted, domain_.key), hash, page)) continue;
      EXPECT_EQ(page, wanted);
      ++found_;
    }
  }

  PageCache& cache_;
  const SharingDomain& domain_;
  const std::uint64_t count_;
  std::atomic<std::uint64_t> found_ = 0;
  std::jthread thread_;
};

TEST_F(PageCacheTest, FindsWhileSourcesComeGoAndChange) {
  constexpr std::uint64_t kCount = 200;
  std::atomic<bool> changed = false;
  std::vector<ScannedPage> pages;
  for (std::uint64_t page = 0; page < kCount; ++page) {
    pages.push_back({page, hash_page(FakeGuestMemory::page_of(page + 1), domain_.seed)});
  }
  cache_->add(std::make_unique<ChangingSource>(changed), pages);
  const Finder one(*cache_, domain_, kCount);
  const Finder two(*cache_, domain_, kCount);

  for (int round = 0; round < 200 || one.found() + two.found() < 1000; ++round) {
    const SourceId added = cache_->add(std::make_unique<ChangingSource>(changed), pages);
    changed = round % 2 == 0;
    EXPECT_TRUE(cache_->filter().lookup(pages[0].hash));
    cache_->remove(added);
  }

  EXPECT_EQ(cache_->size(), kCount);
}

}  // namespace
}  // namespace samepage::pagecache
