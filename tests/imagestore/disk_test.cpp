// A disk is its image plus what was written: read whole against a reference in memory, over
// commits, reopenings, a store that is away, and boots that follow each other's traces.
#include "imagestore/disk.h"

#include <filesystem>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "imagestore/clone.h"
#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kPages = 1'000;

class DiskTest : public ::testing::Test {
 protected:
  DiskTest() : bytes_(disk_bytes(kPages, 1)) {
    write_file(scratch_ / "image", bytes_);
    store_ = open_store(scratch_ / "store");
    const auto imported = import_file(*store_, scratch_ / "image", "base");
    EXPECT_TRUE(imported);
    base_ = imported->version.id;
  }

  Disk::Options options(const std::string& name) const {
    Disk::Options options;
    options.folder = scratch_ / name;
    options.mirrors = scratch_ / "mirrors";
    options.source.store.folder = scratch_ / "store";
    options.image = "base";
    options.traces = false;
    return options;
  }

  void create(const std::string& name, const VersionId& version, std::uint64_t size = 0) const {
    const auto created = Overlay::create(
        scratch_ / name, {.base = version, .size_bytes = size == 0 ? bytes_.size() : size});
    ASSERT_TRUE(created) << created.error().message();
  }

  static std::unique_ptr<Disk> open(const Disk::Options& options) {
    auto disk = Disk::open(options);
    if (!disk) ADD_FAILURE() << disk.error().message();
    return std::move(disk).value();
  }

  static std::vector<std::byte> read_all(Disk& disk) {
    std::vector<std::byte> bytes(disk.size_bytes());
    const auto read = disk.read(0, bytes);
    EXPECT_TRUE(read) << read.error().message();
    return bytes;
  }

  std::vector<std::byte> read_version(const std::string& image, std::uint64_t number) {
    auto reader = ImageReader::open(*store_, image, number);
    EXPECT_TRUE(reader);
    std::vector<std::byte> bytes((*reader)->size_bytes());
    EXPECT_TRUE((*reader)->read(0, bytes));
    return bytes;
  }

  static void random_writes(Disk& disk, std::vector<std::byte>& reference, std::mt19937_64& random,
                            int count) {
    for (int i = 0; i < count; ++i) {
      const std::uint64_t offset = random() % reference.size();
      const std::size_t size =
          1 + random() % std::min<std::size_t>(reference.size() - offset, 20'000);
      if (random() % 4 == 0) {
        ASSERT_TRUE(disk.zero(offset, size));
        std::fill_n(reference.begin() + static_cast<long>(offset), size, std::byte{0});
        continue;
      }
      const auto bytes = random_bytes(size, random());
      ASSERT_TRUE(disk.write(offset, bytes));
      std::copy(bytes.begin(), bytes.end(), reference.begin() + static_cast<long>(offset));
    }
  }

  static Result<CommitReport> commit(Disk& disk, const std::string& image) {
    if (auto begun = disk.begin_commit(); !begun) return tl::unexpected(begun.error());
    return disk.finish_commit(image);
  }

  bool is_clean() {
    const auto verified = verify_store(*store_, {});
    return verified && verified->clean();
  }

  Scratch scratch_;
  std::vector<std::byte> bytes_;
  std::unique_ptr<ImageStore> store_;
  VersionId base_;
};

TEST_F(DiskTest, IsItsImageUntilItIsWritten) {
  create("disk", base_);
  const auto disk = open(options("disk"));

  EXPECT_EQ(read_all(*disk), bytes_);
  EXPECT_EQ(disk->status().usage.written_pages, 0U);
}

TEST_F(DiskTest, ReadsAndWritesAnyRange) {
  std::mt19937_64 random(test_seed());
  create("disk", base_);
  auto disk = open(options("disk"));
  auto reference = bytes_;

  for (int round = 0; round < 10; ++round) {
    random_writes(*disk, reference, random, 50);
    for (int i = 0; i < 50; ++i) {
      const std::uint64_t offset = random() % reference.size();
      std::vector<std::byte> bytes(
          1 + random() % std::min<std::size_t>(reference.size() - offset, 99'999));
      ASSERT_TRUE(disk->read(offset, bytes));
      ASSERT_TRUE(
          std::equal(bytes.begin(), bytes.end(), reference.begin() + static_cast<long>(offset)));
    }
    if (round % 3 == 2) {
      ASSERT_TRUE(disk->flush());
      disk.reset();
      disk = open(options("disk"));
    }
  }
  EXPECT_EQ(read_all(*disk), reference);
}

TEST_F(DiskTest, MayBeLargerThanItsImage) {
  const std::uint64_t size = bytes_.size() + 1'000'001;
  create("disk", base_, size);
  const auto disk = open(options("disk"));
  auto reference = bytes_;
  reference.resize(size);

  EXPECT_EQ(read_all(*disk), reference);
  const std::vector<std::byte> tail(5'000, std::byte{7});
  ASSERT_TRUE(disk->write(size - tail.size(), tail));
  std::copy(tail.begin(), tail.end(), reference.end() - static_cast<long>(tail.size()));
  EXPECT_EQ(read_all(*disk), reference);
  const auto committed = commit(*disk, "larger");
  ASSERT_TRUE(committed) << committed.error().message();
  EXPECT_EQ(read_version("larger", 0), reference);
}

TEST_F(DiskTest, FetchesWholeExtentsOnceForAllDisksOfTheHost) {
  create("one", base_);
  create("two", base_);
  auto one = open(options("one"));
  read_all(*one);
  const auto fetched = one->status().fetched;
  EXPECT_GT(fetched.source.origin_bytes, 0U);
  EXPECT_LE(fetched.demand_fetches, kPages / 8);
  one.reset();  // Which has kept what came with the last page by then.

  const auto two = open(options("two"));
  EXPECT_EQ(read_all(*two), bytes_);

  EXPECT_EQ(two->status().fetched.demand_fetches, 0U);
  EXPECT_EQ(two->status().fetched.source.origin_bytes, 0U);
}

TEST_F(DiskTest, MergesReadsOfOneExtent) {
  create("disk", base_);
  const auto disk = open(options("disk"));
  {
    std::vector<std::jthread> readers;
    for (std::uint64_t i = 0; i < 16; ++i) {
      readers.emplace_back([&, i] {
        std::vector<std::byte> page(kPageSize);
        ASSERT_TRUE(disk->read(i * kPageSize, page));
        EXPECT_TRUE(std::equal(page.begin(), page.end(),
                               bytes_.begin() + static_cast<long>(i * kPageSize)));
      });
    }
  }
  EXPECT_LE(disk->status().fetched.demand_fetches, 2U);
}

TEST_F(DiskTest, TellsWhichStretchesAreZero) {
  create("disk", base_);
  const auto disk = open(options("disk"));
  ASSERT_TRUE(disk->zero(0, 64 * kPageSize));
  std::uint64_t zeros = 0;
  for (std::uint64_t offset = 0; offset < bytes_.size();) {
    const auto stretch = disk->stretch_at(offset, bytes_.size());
    ASSERT_GT(stretch.bytes, 0U);
    std::vector<std::byte> content(stretch.bytes);
    ASSERT_TRUE(disk->read(offset, content));
    const bool is_zero = std::all_of(content.begin(), content.end(),
                                     [](std::byte byte) { return byte == std::byte{0}; });
    if (stretch.is_zero) {
      EXPECT_TRUE(is_zero) << offset;
      zeros += stretch.bytes;
    }
    offset += stretch.bytes;
  }
  EXPECT_GT(zeros, 100 * kPageSize);
}

TEST_F(DiskTest, CommitsWhatItIsAtOneMoment) {
  std::mt19937_64 random(test_seed());
  create("disk", base_);
  const auto disk = open(options("disk"));
  auto reference = bytes_;
  random_writes(*disk, reference, random, 30);
  const auto first = reference;
  ASSERT_TRUE(disk->begin_commit());
  random_writes(*disk, reference, random, 30);
  const auto committed = disk->finish_commit("vm");
  ASSERT_TRUE(committed) << committed.error().message();
  EXPECT_EQ(committed->number, 2U);  // The first is the clone of the base.

  const auto again = commit(*disk, "vm");
  ASSERT_TRUE(again) << again.error().message();
  const auto nothing = commit(*disk, "vm");
  ASSERT_TRUE(nothing) << nothing.error().message();

  EXPECT_EQ(read_version("vm", 1), bytes_);
  EXPECT_EQ(read_version("vm", 2), first);
  EXPECT_EQ(read_version("vm", 3), reference);
  EXPECT_EQ(again->number, 3U);
  EXPECT_EQ(nothing->number, 3U);
  EXPECT_LT(again->changed_pages, disk->status().usage.written_pages);
  EXPECT_EQ(read_all(*disk), reference);
  EXPECT_TRUE(is_clean());
  // A disk on top of the commit is the same disk.
  create("twin", committed->version.id);
  EXPECT_EQ(read_all(*open(options("twin"))), first);
}

TEST_F(DiskTest, GoesOnAfterACommitThatWasCutOff) {
  std::mt19937_64 random(test_seed());
  create("disk", base_);
  auto disk = open(options("disk"));
  auto reference = bytes_;
  random_writes(*disk, reference, random, 30);
  // Killed after the head moved and before the overlay knew: the overlay's log is as before.
  std::filesystem::copy(scratch_ / "disk", scratch_ / "before");
  ASSERT_TRUE(commit(*disk, "vm"));
  const auto intent = store_->catalog().version("vm", 0)->id;
  disk.reset();
  std::filesystem::copy(scratch_ / "before" / "log", scratch_ / "disk" / "log",
                        std::filesystem::copy_options::overwrite_existing);
  write_file(scratch_ / "disk" / "intent", intent.bytes);
  disk = open(options("disk"));
  EXPECT_EQ(disk->status().committed, base_);
  random_writes(*disk, reference, random, 30);

  const auto committed = commit(*disk, "vm");

  ASSERT_TRUE(committed) << committed.error().message();
  EXPECT_EQ(read_version("vm", 0), reference);
  EXPECT_TRUE(is_clean());
}

TEST_F(DiskTest, RefusesToCommitOntoAnotherImage) {
  create("disk", base_);
  const auto disk = open(options("disk"));
  ASSERT_TRUE(disk->write(0, random_bytes(kPageSize, 5)));
  write_file(scratch_ / "other", disk_bytes(10, 3));
  ASSERT_TRUE(import_file(*store_, scratch_ / "other", "other"));

  const auto refused = commit(*disk, "other");

  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  EXPECT_TRUE(commit(*disk, "vm"));
}

TEST_F(DiskTest, WaitsForAStoreThatIsAway) {
  create("disk", base_);
  std::filesystem::rename(scratch_ / "store", scratch_ / "away");
  const auto disk = open(options("disk"));
  ASSERT_TRUE(disk->write(0, random_bytes(kPageSize, 5)));  // Needs nothing.
  std::vector<std::byte> page(kPageSize);
  std::atomic<bool> done{false};
  std::jthread reader([&] {
    EXPECT_TRUE(disk->read(700 * kPageSize, page));
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // Time to fail, if it were to.
  EXPECT_FALSE(done);
  std::filesystem::rename(scratch_ / "away", scratch_ / "store");
  reader.join();

  EXPECT_TRUE(
      std::equal(page.begin(), page.end(), bytes_.begin() + static_cast<long>(700 * kPageSize)));
}

TEST_F(DiskTest, ReportsDamageAndServesNothingFalse) {
  auto pack = read_file(scratch_ / "store" / "packs" / "pack-000001");
  create("disk", base_);
  for (std::size_t i = 0; i < 200; ++i) {
    pack[pack.size() / 3 + i * 97 % (pack.size() / 3)] ^= std::byte{0x10};
  }
  write_file(scratch_ / "store" / "packs" / "pack-000001", pack);
  const auto disk = open(options("disk"));
  int refused = 0;
  for (std::uint64_t page = 0; page < kPages && refused == 0; page += 50) {
    std::vector<std::byte> content(kPageSize);
    const auto read = disk->read(page * kPageSize, content);
    if (!read) {
      ++refused;
      EXPECT_EQ(read.error().code(), Errc::kCorrupt);
    } else {
      EXPECT_TRUE(std::equal(content.begin(), content.end(),
                             bytes_.begin() + static_cast<long>(page * kPageSize)));
    }
  }
  EXPECT_GT(refused, 0);
}

/// Waits until a disk says something of itself.
template <class Condition>
bool eventually(Disk& disk, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::chrono::steady_clock::now() < end) {
    if (condition(disk.status())) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

class BootTest : public DiskTest {
 protected:
  Disk::Options booting(const std::string& name) const {
    Disk::Options booting = options(name);
    booting.traces = true;
    booting.mirrors = scratch_ / ("mirrors-" + name);  // A host of its own.
    return booting;
  }

  /// Pages with data that the guest reads, in its order.
  std::vector<std::uint64_t> boot_pages() const {
    std::vector<std::uint64_t> pages;
    for (std::uint64_t i = 0; i < 60; ++i) {
      const std::uint64_t page = i * 389 % kPages;
      const auto at = bytes_.begin() + static_cast<long>(page * kPageSize);
      if (std::any_of(at, at + kPageSize, [](std::byte b) { return b != std::byte{0}; })) {
        pages.push_back(page);
      }
    }
    return pages;
  }

  void boot(Disk& disk) const {
    for (const std::uint64_t page : boot_pages()) {
      std::vector<std::byte> content(kPageSize);
      ASSERT_TRUE(disk.read(page * kPageSize, content));
    }
  }

  std::optional<BootTrace> trace_of(const VersionId& version) {
    const auto body = store_->catalog().trace(version, 0);
    if (!body || !*body) return std::nullopt;
    auto trace = decode_trace(**body, store_->keys());
    if (!trace) return std::nullopt;
    return *trace;
  }
};

TEST_F(BootTest, RecordsWhatWasReadAndTheNextBootFollows) {
  create("first", base_);
  const auto first = open(booting("first"));
  boot(*first);
  const auto pages = boot_pages();
  ASSERT_TRUE(
      eventually(*first, [&](const auto& now) { return now.traced_pages == pages.size(); }));
  const auto trace = trace_of(base_);
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->numbers(), pages);

  create("second", base_);
  const auto second = open(booting("second"));
  ASSERT_TRUE(
      eventually(*second, [&](const auto& now) { return now.followed_pages == pages.size(); }));
  ASSERT_TRUE(second->drain(std::chrono::steady_clock::now() + std::chrono::seconds(30)));
  boot(*second);

  EXPECT_EQ(second->status().fetched.demand_fetches, 0U);
}

TEST_F(BootTest, ASlowBootLearnsFromAFastOneInTheSameStorm) {
  create("slow", base_);
  const auto slow = open(booting("slow"));
  create("fast", base_);
  const auto fast = open(booting("fast"));

  boot(*fast);

  EXPECT_TRUE(eventually(*slow, [](const auto& now) { return now.fetched.prefetches > 0; }));
}

TEST_F(BootTest, ATraceServesTheNextVersionByContent) {
  create("first", base_);
  const auto pages = boot_pages();
  {
    const auto first = open(booting("first"));
    boot(*first);
    ASSERT_TRUE(
        eventually(*first, [&](const auto& now) { return now.traced_pages == pages.size(); }));
  }
  // The next build of the image: everything lies 5 pages further on.
  std::vector<std::byte> moved(bytes_.size() + 5 * kPageSize, std::byte{3});
  std::copy(bytes_.begin(), bytes_.end(), moved.begin() + 5 * kPageSize);
  write_file(scratch_ / "next", moved);
  const auto imported = import_file(*store_, scratch_ / "next", "next");
  ASSERT_TRUE(imported);
  const auto trace = trace_of(base_);
  ASSERT_TRUE(trace);
  const auto followed =
      follow_trace(store_->origin(), store_->keys(), *trace, imported->version.id);
  ASSERT_TRUE(followed) << followed.error().message();
  ASSERT_GE(followed->pages.size(), trace->pages.size() * 9 / 10);
  std::size_t right = 0;
  for (const TracedPage& page : followed->pages) {
    const auto at = std::span(moved).subspan(page.page * kPageSize).first<kPageSize>();
    right += digest_page(at, store_->keys().pages) == page.digest ? 1 : 0;
  }
  EXPECT_EQ(right, followed->pages.size());

  create("second", imported->version.id, moved.size());
  const auto second = open(booting("second"));
  EXPECT_TRUE(eventually(*second, [](const auto& now) { return now.followed_pages > 0; }));
}

TEST_F(BootTest, ATraceOrdersTheExtentsOfTheNextBuild) {
  EXPECT_EQ(newest_trace(store_->catalog(), store_->keys(), "base").error().code(),
            Errc::kNotFound);
  EXPECT_EQ(newest_trace(store_->catalog(), store_->keys(), "none").error().code(),
            Errc::kNotFound);
  BootTrace trace{.version = base_, .pages = {}};
  auto manifest = Manifest::open(store_->origin(), store_->keys(), base_).value();
  for (const std::uint64_t page : boot_pages()) {
    trace.pages.push_back({.page = page, .digest = manifest.find(page).value()->digest});
  }
  ASSERT_TRUE(
      store_->catalog().put_trace(base_, trace.pages.size(), encode_trace(trace, store_->keys())));
  const auto newest = newest_trace(store_->catalog(), store_->keys(), "base");
  ASSERT_TRUE(newest) << newest.error().message();
  EXPECT_EQ(newest->pages, trace.pages);

  // The same pages in another store, of the same key: 60 of a thousand, in two extents.
  std::filesystem::create_directories(scratch_ / "next");
  std::filesystem::copy(scratch_ / "store/domain.key", scratch_ / "next/domain.key");
  const auto next = open_store(scratch_ / "next");
  const SystemClock clock;
  const auto imported = import_image(
      *next, {.path = scratch_ / "image", .name = "next", .order = newest->digests()}, clock);
  ASSERT_TRUE(imported);
  auto packed = Manifest::open(next->origin(), next->keys(), imported->version.id).value();
  std::set<ObjectName> extents;
  for (const std::uint64_t page : boot_pages()) {
    extents.insert(packed.find(page).value()->place.extent);
  }
  EXPECT_LE(extents.size(), 3U);
}

TEST(BootTraceTest, RefusesWhatWasTamperedWith) {
  const DomainKeys keys(DigestKey{});
  BootTrace trace;
  for (std::uint64_t i = 0; i < 50; ++i) {
    TracedPage page{.page = i * 7919 % 1000, .digest = {}};
    page.digest.bytes.fill(static_cast<std::byte>(i));
    trace.pages.push_back(page);
  }
  const auto bytes = encode_trace(trace, keys);
  EXPECT_EQ(decode_trace(bytes, keys)->pages, trace.pages);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto damaged = bytes;
    damaged[i] ^= std::byte{4};
    EXPECT_FALSE(decode_trace(damaged, keys)) << i;
  }
  EXPECT_FALSE(decode_trace(bytes, DomainKeys(DigestKey{.bytes = {std::byte{1}}})));
}

}  // namespace
}  // namespace samepage::imagestore
