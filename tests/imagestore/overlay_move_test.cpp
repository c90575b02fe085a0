// What an overlay hands out of a move is the disk: after the rounds, and whatever was written and
// trimmed meanwhile, the copy is what the original is, page by page.
#include <algorithm>
#include <csignal>
#include <map>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

#include "imagestore/overlay.h"
#include "imagestore/page_parcel.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kPages = 9'000;  // More than two groups of the map.

VersionId version_of(std::uint8_t number) {
  VersionId id;
  id.bytes.fill(std::byte{number});
  return id;
}

Result<void> read_zeros(std::uint64_t /*page*/, PageBuffer bytes) {
  std::ranges::fill(bytes, std::byte{0x5a});
  return {};
}

std::unique_ptr<Overlay> make(const std::filesystem::path& folder) {
  EXPECT_TRUE(Overlay::create(folder, {.base = version_of(1), .size_bytes = kPages * kPageSize}));
  return Overlay::open(folder).value();
}

class OverlayMoveTest : public ::testing::Test {
 protected:
  OverlayMoveTest() : from_(make(scratch_ / "from")), to_(make(scratch_ / "to")) {}

  void write(std::uint64_t page, std::uint64_t count, std::uint8_t value) {
    const std::vector<std::byte> bytes(count * kPageSize, std::byte{value});
    ASSERT_TRUE(from_->write(page * kPageSize, bytes, read_zeros));
  }
  void trim(std::uint64_t page, std::uint64_t count) {
    ASSERT_TRUE(from_->zero(page * kPageSize, count * kPageSize, read_zeros));
  }

  /// Takes one piece to the copy, as a migration does. The pages of data in it.
  std::uint64_t carry(bool& is_last) {
    auto unsent = from_->take_unsent(kParcelPagesMax);
    EXPECT_TRUE(unsent) << unsent.error().message();
    is_last = unsent->is_last;
    const std::uint64_t pages = unsent->bytes.size() / kPageSize;
    const auto parcel =
        decode_parcel(encode_parcel({.runs = unsent->runs, .bytes = unsent->bytes}), kPages);
    EXPECT_TRUE(parcel) << parcel.error().message();
    EXPECT_TRUE(to_->put(parcel->runs, parcel->bytes));
    return pages;
  }

  std::uint64_t carry_round() {
    std::uint64_t pages = 0;
    for (bool is_last = false; !is_last;) pages += carry(is_last);
    return pages;
  }

  void expect_same() const {
    std::vector<std::byte> original(kPageSize);
    std::vector<std::byte> copy(kPageSize);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const PageState state = from_->run_at(page, page + 1).state;
      ASSERT_EQ(to_->run_at(page, page + 1).state, state) << "page " << page;
      if (state != PageState::kWritten) continue;
      ASSERT_TRUE(from_->read(page * kPageSize, original));
      ASSERT_TRUE(to_->read(page * kPageSize, copy));
      ASSERT_EQ(copy, original) << "page " << page;
    }
  }

  Scratch scratch_;
  std::unique_ptr<Overlay> from_;
  std::unique_ptr<Overlay> to_;
};

TEST_F(OverlayMoveTest, ARoundCarriesAllThatWasWritten) {
  write(0, 1, 1);
  write(100, 300, 2);
  write(kPages - 1, 1, 3);
  trim(150, 20);
  trim(5'000, 3'000);
  ASSERT_TRUE(from_->begin_move(true));
  EXPECT_EQ(carry_round(), 282U);
  expect_same();
  EXPECT_EQ(carry_round(), 0U);
}

TEST_F(OverlayMoveTest, WhatIsWrittenOrTrimmedBehindARoundComesInTheNext) {
  write(0, 200, 1);
  write(4'500, 200, 1);
  ASSERT_TRUE(from_->begin_move(true));
  bool is_last = false;
  for (int i = 0; i < 10; ++i) carry(is_last);  // Beyond the first pages.
  ASSERT_FALSE(is_last);
  write(3, 2, 9);
  trim(10, 5);
  write(8'000, 1, 9);
  while (!is_last) carry(is_last);
  EXPECT_EQ(carry_round(), 2U);
  expect_same();
  EXPECT_EQ(carry_round(), 0U);
}

TEST_F(OverlayMoveTest, AGuestThatWritesOnIsCaughtUpWithWhenItStops) {
  write(0, 500, 1);
  ASSERT_TRUE(from_->begin_move(true));
  {
    const std::jthread guest([&](const std::stop_token& stop) {
      std::mt19937_64 random(test_seed());
      while (!stop.stop_requested()) {
        const std::uint64_t page = random() % (kPages - 40);
        if (random() % 4 == 0) {
          trim(page, 1 + random() % 40);
        } else {
          write(page, 1 + random() % 40, static_cast<std::uint8_t>(random()));
        }
      }
    });
    for (int i = 0; i < 40; ++i) carry_round();
  }
  carry_round();
  expect_same();
}

TEST_F(OverlayMoveTest, PagesOfTheLastCommitCanBeLeftOut) {
  write(0, 10, 1);
  ASSERT_TRUE(from_->freeze());
  ASSERT_TRUE(from_->visit_frozen([](const StateRun&, auto) -> Result<void> { return {}; }));
  ASSERT_TRUE(from_->finish_commit(version_of(2)));
  write(5, 1, 2);
  write(20, 1, 2);
  ASSERT_TRUE(from_->begin_move(false));
  EXPECT_EQ(carry_round(), 2U);
  from_->end_move();
  ASSERT_TRUE(from_->begin_move(true));
  EXPECT_EQ(carry_round(), 11U);
}

TEST_F(OverlayMoveTest, ACommitAndAMoveExcludeEachOther) {
  write(0, 1, 1);
  ASSERT_TRUE(from_->begin_move(true));
  EXPECT_EQ(from_->freeze().error().code(), Errc::kInvalid);
  EXPECT_EQ(from_->begin_move(true).error().code(), Errc::kInvalid);
  from_->end_move();
  ASSERT_TRUE(from_->freeze());
  EXPECT_EQ(from_->begin_move(true).error().code(), Errc::kInvalid);
}

TEST_F(OverlayMoveTest, AMoveThatWasGivenUpBeginsFromTheStart) {
  write(0, 50, 1);
  ASSERT_TRUE(from_->begin_move(true));
  carry_round();
  from_->end_move();
  from_.reset();
  from_ = Overlay::open(scratch_ / "from").value();
  ASSERT_TRUE(from_->begin_move(true));
  EXPECT_EQ(carry_round(), 50U);
}

TEST_F(OverlayMoveTest, ACopyIsRefusedWhatDoesNotFit) {
  const std::vector<std::byte> page(kPageSize);
  const auto put = [&](const StateRun& run) { return to_->put(std::span(&run, 1), page); };
  EXPECT_TRUE(put({.first = kPages - 1, .count = 1, .state = PageState::kWritten}));
  EXPECT_FALSE(put({.first = kPages, .count = 1, .state = PageState::kWritten}));
  EXPECT_FALSE(put({.first = kPages - 1, .count = UINT64_MAX, .state = PageState::kZero}));
  EXPECT_FALSE(put({.first = 0, .count = 2, .state = PageState::kWritten}));
  EXPECT_FALSE(put({.first = 0, .count = 1, .state = PageState::kBase}));
}

TEST_F(OverlayMoveTest, AKilledProcessLosesNothingButTheMove) {
  for (std::uint64_t strike = 0; strike < strikes(20); ++strike) {
    from_.reset();
    const Shared told;
    const int status = kill_in(told, std::chrono::microseconds(1'000 + strike * 700), [&] {
      from_ = Overlay::open(scratch_ / "from").value();
      static_cast<void>(from_->begin_move(true));
      told->ready = true;
      for (std::uint64_t i = 0;; ++i) {
        const std::vector<std::byte> bytes(7 * kPageSize, std::byte(i));
        static_cast<void>(from_->write(i * 77 % (kPages - 7) * kPageSize, bytes, read_zeros));
        static_cast<void>(from_->take_unsent(kParcelPagesMax));
      }
    });
    ASSERT_TRUE(was_killed(status));
    from_ = Overlay::open(scratch_ / "from").value();
    ASSERT_TRUE(from_->begin_move(true));
    carry_round();
    expect_same();
    from_->end_move();
  }
}

TEST(PageParcelTest, IsWhatItWasMadeOf) {
  PageParcel parcel{.runs = {{.first = 5, .count = 2, .state = PageState::kWritten},
                             {.first = 9, .count = 1'000'000, .state = PageState::kZero}},
                    .bytes = std::vector<std::byte>(2 * kPageSize, std::byte{7})};
  const auto packed = encode_parcel(parcel);
  EXPECT_LT(packed.size(), 300U);
  const auto same = decode_parcel(packed, 2'000'000);
  ASSERT_TRUE(same);
  EXPECT_EQ(same->runs, parcel.runs);
  EXPECT_EQ(same->bytes, parcel.bytes);
  EXPECT_EQ(decode_parcel(packed, 1'000'000).error().code(), Errc::kCorrupt);

  parcel.bytes = random_bytes(2 * kPageSize, 1);
  EXPECT_EQ(decode_parcel(encode_parcel(parcel), 2'000'000)->bytes, parcel.bytes);
}

TEST(PageParcelTest, AFlippedBitIsNoticed) {
  const auto parcel =
      encode_parcel({.runs = {{.first = 5, .count = 1, .state = PageState::kWritten}},
                     .bytes = random_bytes(kPageSize, 1)});
  for (std::size_t bit = 0; bit < parcel.size() * 8; bit += 13) {
    auto flipped = parcel;
    flipped[bit / 8] ^= std::byte(1U << bit % 8);
    EXPECT_EQ(decode_parcel(flipped, 100).error().code(), Errc::kCorrupt) << "bit " << bit;
  }
}

}  // namespace
}  // namespace samepage::imagestore
