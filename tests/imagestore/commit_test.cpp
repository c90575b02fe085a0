// The promises under test: a commit writes only what changed; commits of disjoint pages merge,
// others fail and change nothing; clones cost nothing; old versions stay as they were.

#include "imagestore/commit.h"

#include <thread>

#include <gtest/gtest.h>

#include "imagestore/clone.h"
#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kPages = 2000;

class CommitTest : public ::testing::Test {
 protected:
  CommitTest() {
    write_file(scratch_ / "disk", disk_);
    store_ = open_store(scratch_ / "store");
    EXPECT_TRUE(import_file(*store_, scratch_ / "disk", "disk"));
  }

  VersionId head(const std::string& image = "disk") {
    return store_->catalog().find(image).value().head.id;
  }

  static Result<CommitReport> commit_page(ImageStore& store, const VersionId& base,
                                          std::uint64_t page, std::span<const std::byte> bytes) {
    const SystemClock clock;
    auto commit = TRY(Commit::begin(store, {.image = "disk", .base = base}));
    TRY(commit->put(page, bytes));
    return commit->finish(clock);
  }

  std::vector<std::byte> read(std::uint64_t number, const std::string& image = "disk") {
    auto reader = ImageReader::open(*store_, image, number).value();
    std::vector<std::byte> bytes(reader->size_bytes());
    EXPECT_TRUE(reader->read(0, bytes));
    return bytes;
  }

  void expect_clean() {
    const auto report = verify_store(*store_, {}).value();
    EXPECT_TRUE(report.clean()) << report.descriptions.front();
  }

  Scratch scratch_;
  const SystemClock clock_;
  std::vector<std::byte> disk_ = disk_bytes(kPages, 5);
  std::unique_ptr<ImageStore> store_;
};

TEST_F(CommitTest, EveryVersionStaysReadable) {
  std::mt19937_64 random(test_seed());
  std::vector<std::vector<std::byte>> contents{disk_};
  for (int version = 2; version <= 20; ++version) {
    auto bytes = contents.back();
    auto commit = Commit::begin(*store_, {.image = "disk", .base = head()}).value();
    for (int change = 0; change < 10; ++change) {
      const std::size_t first = random() % (kPages - 40);
      const std::size_t count = 1 + random() % 40;
      const auto fresh = disk_bytes(count, random());
      std::copy(fresh.begin(), fresh.end(),
                bytes.begin() + static_cast<std::ptrdiff_t>(first * kPageSize));
      ASSERT_TRUE(commit->put(first, fresh));
    }
    ASSERT_TRUE(commit->put_zeros({.first = 7, .count = 3}));
    std::fill_n(bytes.begin() + 7 * kPageSize, 3 * kPageSize, std::byte{0});
    const auto report = commit->finish(clock_);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_EQ(report->number, version);
    contents.push_back(std::move(bytes));
  }
  for (std::size_t i = 0; i < contents.size(); ++i) EXPECT_EQ(read(i + 1), contents[i]) << i;
  const auto image = store_->catalog().find("disk").value();
  std::uint64_t data = 0;
  for (std::size_t at = 0; at < disk_.size(); at += kPageSize) {
    data += is_zero(PageView(&contents.back()[at], kPageSize)) ? 0 : kPageSize;
  }
  EXPECT_EQ(image.head.data_bytes, data);
  expect_clean();
}

TEST_F(CommitTest, WritesOnlyWhatChanged) {
  std::uint64_t before = 0;
  const auto count = [](std::uint64_t& bytes) {
    bytes = 0;
    return [&bytes](const StoredObject& object) -> Result<void> {
      bytes += object.stored_bytes;
      return {};
    };
  };
  ASSERT_TRUE(store_->origin().list(count(before)));
  const auto report = commit_page(*store_, head(), 1234, random_bytes(2 * kPageSize, 3)).value();
  std::uint64_t after = 0;
  ASSERT_TRUE(store_->origin().list(count(after)));
  EXPECT_EQ(report.version.new_bytes, 2 * kPageSize);
  EXPECT_EQ(report.duplicate_pages, 0U);
  EXPECT_LT(after - before, 2 * kPageSize + 32 * 1024) << "two pages, a leaf, a root, a version";
  EXPECT_LE(report.version.stored_bytes, after - before);

  const auto known = std::span(disk_).first(0);
  EXPECT_EQ(commit_page(*store_, head(), 0, known).value().version.id, head()) << "no change";
  EXPECT_EQ(store_->catalog().find("disk").value().head.number, 2U);
}

TEST_F(CommitTest, DisjointCommitsMergeAndOverlappingOnesFail) {
  const VersionId base = head();
  const auto one = random_bytes(kPageSize, 1);
  const auto other = random_bytes(kPageSize, 2);
  const auto third = random_bytes(kPageSize, 3);
  ASSERT_TRUE(commit_page(*store_, base, 10, one));

  EXPECT_EQ(commit_page(*store_, base, 20, other).value().number, 3U);

  auto late = Commit::begin(*store_, {.image = "disk", .base = base}).value();
  ASSERT_TRUE(late->put(10, third));
  ASSERT_TRUE(late->put(11, third));
  ASSERT_TRUE(late->put(20, third));
  const auto refused = late->finish(clock_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  EXPECT_NE(refused.error().message().find("pages 10, 20"), std::string::npos)
      << refused.error().message();
  EXPECT_EQ(late->conflicts(), (std::vector<PageRange>{{10, 1}, {20, 1}}));
  late.reset();

  EXPECT_TRUE(commit_page(*store_, base, 10, one)) << "the same content is no conflict";
  auto merged = disk_;
  std::copy(one.begin(), one.end(), merged.begin() + 10 * kPageSize);
  std::copy(other.begin(), other.end(), merged.begin() + 20 * kPageSize);
  EXPECT_EQ(read(0), merged);
  EXPECT_EQ(store_->catalog().find("disk").value().head.number, 3U);
  expect_clean();
}

TEST_F(CommitTest, ConcurrentCommitsAllArrive) {
  constexpr int kThreads = 8;
  constexpr int kRounds = 5;
  const VersionId base = head();
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const auto store = open_store(scratch_ / "store");
      for (int round = 0; round < kRounds; ++round) {
        const auto page = static_cast<std::uint64_t>(thread * 100 + round);
        const auto bytes = random_bytes(kPageSize, page);
        const auto report = commit_page(*store, base, page, bytes);
        EXPECT_TRUE(report) << report.error().message();
      }
    });
  }
  threads.clear();
  auto expected = disk_;
  for (std::size_t thread = 0; thread < kThreads; ++thread) {
    for (std::size_t round = 0; round < kRounds; ++round) {
      const auto bytes = random_bytes(kPageSize, thread * 100 + round);
      std::copy(bytes.begin(), bytes.end(),
                expected.begin() + static_cast<std::ptrdiff_t>((thread * 100 + round) * kPageSize));
    }
  }
  EXPECT_EQ(read(0), expected);
  EXPECT_EQ(store_->catalog().find("disk").value().versions, 1U + kThreads * kRounds);
  expect_clean();
}

TEST_F(CommitTest, AnImageGrowsAndDoesNotShrink) {
  const auto base = head();
  auto commit =
      Commit::begin(*store_, {.image = "disk", .base = base, .size_bytes = 5'000 * kPageSize})
          .value();
  ASSERT_TRUE(commit->put(4'999, random_bytes(kPageSize, 8)));
  EXPECT_EQ(commit->put(5'000, random_bytes(kPageSize, 8)).error().code(), Errc::kInvalid);
  ASSERT_TRUE(commit->finish(clock_));
  auto grown = disk_;
  grown.resize(5'000 * kPageSize);
  const auto last = random_bytes(kPageSize, 8);
  std::copy(last.begin(), last.end(), grown.end() - kPageSize);
  EXPECT_EQ(read(0), grown);
  EXPECT_EQ(Commit::begin(*store_, {.image = "disk", .base = head(), .size_bytes = kPageSize})
                .error()
                .code(),
            Errc::kInvalid);
}

TEST_F(CommitTest, ACommitThatIsDroppedLeavesNothing) {
  std::uint64_t objects = 0;
  const auto count = [&](const StoredObject&) {
    ++objects;
    return Result<void>();
  };
  ASSERT_TRUE(store_->origin().list(count));
  const auto before = std::exchange(objects, 0);
  const auto size = std::filesystem::file_size(scratch_ / "store/packs/pack-000001");
  {
    auto commit = Commit::begin(*store_, {.image = "disk", .base = head()}).value();
    ASSERT_TRUE(commit->put(0, random_bytes(500 * kPageSize, 8)));
  }
  ASSERT_TRUE(store_->origin().list(count));
  EXPECT_EQ(objects, before);
  EXPECT_EQ(std::filesystem::file_size(scratch_ / "store/packs/pack-000001"), size);
}

TEST_F(CommitTest, ClonesAreImagesOfTheirOwn) {
  const auto clone =
      clone_image(*store_, {.source = "disk", .number = 0, .name = "clone"}, clock_).value();
  EXPECT_EQ(clone.id, head());
  const auto bytes = random_bytes(kPageSize, 3);
  auto commit = Commit::begin(*store_, {.image = "clone", .base = clone.id}).value();
  ASSERT_TRUE(commit->put(0, bytes));
  ASSERT_TRUE(commit->finish(clock_));
  EXPECT_EQ(read(0), disk_);
  auto changed = disk_;
  std::copy(bytes.begin(), bytes.end(), changed.begin());
  EXPECT_EQ(read(0, "clone"), changed);
  EXPECT_EQ(read(1, "clone"), disk_);

  const auto refuse = [&](const CloneOptions& options) {
    return clone_image(*store_, options, clock_).error().code();
  };
  EXPECT_EQ(refuse({.source = "disk", .number = 0, .name = "clone"}), Errc::kInvalid);
  EXPECT_EQ(refuse({.source = "disk", .number = 9, .name = "x"}), Errc::kNotFound);
  EXPECT_EQ(refuse({.source = "none", .number = 0, .name = "x"}), Errc::kNotFound);
  EXPECT_EQ(Commit::begin(*store_, {.image = "disk", .base = head("clone")}).error().code(),
            Errc::kInvalid);
  EXPECT_EQ(Commit::begin(*store_, {.image = "none", .base = head()}).error().code(),
            Errc::kNotFound);
}

TEST_F(CommitTest, DiffTellsRunsOfPages) {
  const VersionId before = head();
  auto commit = Commit::begin(*store_, {.image = "disk", .base = before}).value();
  ASSERT_TRUE(commit->put(100, random_bytes(3 * kPageSize, 8)));
  ASSERT_TRUE(commit->put(1'500, random_bytes(kPageSize, 9)));
  ASSERT_TRUE(commit->finish(clock_));
  std::vector<PageRange> ranges;
  const auto report = diff_versions(*store_, before, head(), [&](const PageRange& range) {
                        ranges.push_back(range);
                        return Result<void>();
                      }).value();
  EXPECT_EQ(ranges, (std::vector<PageRange>{{100, 3}, {1'500, 1}}));
  EXPECT_EQ(report.pages, 4U);
}

TEST_F(CommitTest, ReadingAnOldVersionCostsWhatTheFirstCost) {
  constexpr int kVersions = 200;
  for (int i = 0; i < kVersions; ++i) {
    const auto bytes = random_bytes(kPageSize, static_cast<std::uint64_t>(i));
    ASSERT_TRUE(commit_page(*store_, head(), static_cast<std::uint64_t>(i * 9), bytes));
  }
  // The tree is as high as ever: what a page costs are the nodes above it and its extent.
  const auto nodes = [&](std::uint64_t number) {
    const auto version = store_->catalog().version("disk", number).value();
    auto manifest = Manifest::open(store_->origin(), store_->keys(), version.id).value();
    std::uint64_t entered = 0;
    EXPECT_TRUE(manifest.walk([&](const ObjectName&) { return ++entered > 0; },
                              [](std::uint64_t, const PageRef&) { return Result<void>(); }));
    return entered;
  };
  EXPECT_EQ(nodes(kVersions + 1), nodes(1));
}

}  // namespace
}  // namespace samepage::imagestore
