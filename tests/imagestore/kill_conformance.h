#pragma once

// The promise of a store whose writers and collectors are killed (SIGKILL) at any moment, for
// whatever origin: no acknowledged commit is lost, what is in use stays, what is not goes, and the
// store verifies clean. Each kind of origin instantiates it with its StorePlaceKind. The seed is
// printed; SAMEPAGE_SEED runs it again, SAMEPAGE_FAULTS=1000 the full campaign.

#include <chrono>
#include <optional>
#include <random>

#include <gtest/gtest.h>

#include "imagestore/commit.h"
#include "imagestore/garbage_collector.h"
#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/fakes/fake_clock.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/store_place.h"

namespace samepage::imagestore {

/// By its name, GoogleTest runs it before the tests that leave threads behind, which the processes
/// that it forks would miss.
class KillDeathTest : public ::testing::TestWithParam<StorePlaceKind> {
 protected:
  static constexpr std::size_t kPages = 600;
  static constexpr std::size_t kChanged = 24;
  static constexpr std::size_t kGarbagePages = 300;
  static constexpr auto kGrace = std::chrono::hours(25);  ///< More than the collector's.

  std::unique_ptr<ImageStore> open() {
    auto options = place_->store_options();
    options.access = DirOrigin::Access::kWrite;
    auto store = ImageStore::open(options);
    if (!store) std::cerr << store.error().message() << "\n";
    return std::move(store).value();
  }

  /// What version `number` has at pages that its number chooses.
  static std::vector<std::byte> content(std::uint64_t number) {
    return random_bytes(kChanged * kPageSize, number);
  }
  static std::uint64_t first_page(std::uint64_t number) {
    return number * 31 % (kPages - kChanged);
  }

  static Result<std::uint64_t> commit_next(ImageStore& store) {
    const auto head = TRY(store.catalog().find("disk")).head;
    auto commit = TRY(Commit::begin(store, {.image = "disk", .base = head.id}));
    TRY(commit->put(first_page(head.number + 1), content(head.number + 1)));
    return TRY(commit->finish(SystemClock())).number;
  }

  [[noreturn]] void commit_until_killed() {
    const auto store = open();
    told_commits_->ready = true;
    while (true) {
      const auto number = commit_next(*store);
      if (number) told_commits_->done = *number;
      // What a collector took is what a commit begins again for.
      if (!number && number.error().code() != Errc::kUnavailable) ::_exit(1);
    }
  }

  [[noreturn]] void collect_until_killed() {
    const auto store = open();
    fakes::FakeClock clock;
    clock.advance(static_cast<int>(told_collections_->round) * kGrace);
    told_collections_->ready = true;
    while (true) {
      if (!collect_garbage(*store, {}, clock)) ::_exit(1);
      ++told_collections_->done;
    }
  }

  void leave_garbage(std::uint64_t round) {
    write_file(scratch_ / "gone", random_bytes(kGarbagePages * kPageSize, 1'000'000 + round));
    const auto store = open();
    ASSERT_TRUE(import_file(*store, scratch_ / "gone", "gone"));
    ASSERT_TRUE(store->catalog().remove("gone", {}));
  }

  std::chrono::microseconds moment(std::uint64_t below_us) {
    return std::chrono::microseconds(random_() % below_us);
  }

  /// Twice what `work` takes, in microseconds: kills fall into that, whatever the machine's load.
  template <class Work>
  static std::uint64_t twice(const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const auto took = std::chrono::steady_clock::now() - start;
    return 1'000 + 2 * static_cast<std::uint64_t>(
                           std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  }

  void expect_version(ImageStore& store, std::uint64_t number) {
    auto reader = ImageReader::open(store, "disk", number);
    ASSERT_TRUE(reader) << number << ": " << reader.error().message();
    std::vector<std::byte> bytes(kChanged * kPageSize);
    const auto read = (*reader)->read(first_page(number) * kPageSize, bytes);
    ASSERT_TRUE(read) << number << ": " << read.error().message();
    ASSERT_EQ(bytes, content(number)) << number;
  }

  void kill_a_committer(std::uint64_t span_us) {
    const int status = committers_.kill_after(moment(span_us));
    ASSERT_TRUE(was_killed(status)) << "exit " << WEXITSTATUS(status);
    const auto store = open();
    const auto head = store->catalog().find("disk").value().head.number;
    ASSERT_GE(head, told_commits_->done);
    ASSERT_LE(head, told_commits_->done + 1) << "one may be durable and not acknowledged yet";
    if (head > 1) expect_version(*store, head);
    told_commits_->done = head;
  }

  void kill_a_collector(std::uint64_t round, std::uint64_t span_us) {
    leave_garbage(round);
    told_collections_->round = round + 1;
    const int status = collectors_.kill_after(moment(span_us));
    ASSERT_TRUE(was_killed(status)) << "exit " << WEXITSTATUS(status);
  }

  void expect_clean(std::optional<std::uint64_t> reclaimable = {}) {
    const auto report = verify_store(*open(), {}).value();
    ASSERT_TRUE(report.clean()) << report.descriptions.front();
    if (reclaimable) {
      EXPECT_EQ(report.reclaimable_objects, *reclaimable);
    }
  }

  std::unique_ptr<StorePlace> place_ = GetParam().make();
  Scratch scratch_;
  std::mt19937_64 random_{test_seed()};
  const Shared told_commits_;
  const Shared told_collections_;
  const Killer committers_{told_commits_, [this] { commit_until_killed(); }};
  const Killer collectors_{told_collections_, [this] { collect_until_killed(); }};
};

TEST_P(KillDeathTest, NoAcknowledgedCommitIsLostAndOnlyGarbageGoes) {
  write_file(scratch_ / "disk", disk_bytes(kPages, 5));
  ASSERT_TRUE(import_file(*open(), scratch_ / "disk", "disk"));
  told_commits_->done = 1;
  const std::uint64_t commit_us =
      twice([&] { told_commits_->done = commit_next(*open()).value(); });
  leave_garbage(0);
  const std::uint64_t collect_us =
      twice([&] { ASSERT_TRUE(collect_garbage(*open(), {}, fakes::FakeClock())); });
  const std::uint64_t kills = strikes(GetParam().kills_few);
  for (std::uint64_t round = 0; round < kills && !HasFatalFailure(); ++round) {
    kill_a_committer(commit_us);
    if (HasFatalFailure()) break;
    kill_a_collector(round + 1, collect_us);
    if (round % 100 == 0) expect_clean();
  }
  ASSERT_FALSE(HasFatalFailure());

  fakes::FakeClock clock;
  for (std::uint64_t i = 0; i < 2; ++i) {
    clock.advance(static_cast<int>(kills + 2) * kGrace);
    const auto collected = collect_garbage(*open(), {}, clock);
    ASSERT_TRUE(collected) << collected.error().message();
  }
  expect_clean(0);
  const auto store = open();
  const std::uint64_t last = told_commits_->done;
  for (std::uint64_t number = 2; number <= last; number += 1 + last / 200) {
    expect_version(*store, number);
  }
  auto first = ImageReader::open(*store, "disk", 1).value();
  std::vector<std::byte> bytes(kPages * kPageSize);
  ASSERT_TRUE(first->read(0, bytes));
  EXPECT_EQ(bytes, disk_bytes(kPages, 5));
  std::cout << kills << " kills in mid-commit, " << last << " versions; " << kills
            << " in mid-collection, " << told_collections_->done << " collections ended\n";
  if (kills >= 10) {
    EXPECT_GT(last, 2U) << "no commit was made: the test tests nothing";
  }
}

}  // namespace samepage::imagestore
