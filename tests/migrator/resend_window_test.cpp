// The promise under test: no more is under way than the limits say, all of it can be sent again,
// and nobody waits past a deadline or the end.

#include "migrator/resend_window.h"

#include <algorithm>
#include <thread>

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

constexpr DigestKey kKey{{std::byte{5}}};

Deadline soon() {
  return std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
}
Deadline later() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(20);
}

ResendWindow::Entry entry(std::uint64_t sequence, std::size_t wire_bytes = 10) {
  ResendWindow::Entry made;
  made.sequence = sequence;
  made.wire_bytes = wire_bytes;
  auto slab = std::make_shared<Slab>(8 + 2 * kPageSize);
  made.stretch = {.slab = slab, .bytes = slab->bytes().first(8 + 2 * kPageSize)};
  std::ranges::fill(made.stretch.bytes, static_cast<std::byte>(sequence));
  made.stretch.bytes[8] = std::byte{0xAA};
  made.stretch.bytes[8 + kPageSize] = std::byte{0xBB};
  made.ref_offsets = {8, 8 + kPageSize};
  return made;
}

TEST(ResendWindowTest, BoundsTheBatches) {
  ResendWindow window({.batches_max = 2, .wire_bytes_max = 1000}, kKey);
  ASSERT_TRUE(window.add(entry(0), soon()));
  ASSERT_TRUE(window.add(entry(1), soon()));

  EXPECT_EQ(window.add(entry(2), soon()).error().code(), Errc::kTimedOut);
  ASSERT_EQ(window.acknowledge(0), 8 + 2 * kPageSize);
  EXPECT_TRUE(window.add(entry(2), soon()));
}

TEST(ResendWindowTest, BoundsTheBytesButLetsOneBatchPass) {
  ResendWindow window({.batches_max = 9, .wire_bytes_max = 1000}, kKey);
  ASSERT_TRUE(window.add(entry(0, 5000), soon()));

  EXPECT_EQ(window.add(entry(1, 1), soon()).error().code(), Errc::kTimedOut);
  ASSERT_TRUE(window.acknowledge(0));
  ASSERT_TRUE(window.add(entry(1, 600), soon()));
  EXPECT_TRUE(window.add(entry(2, 400), soon()));
}

TEST(ResendWindowTest, WhatHasArrivedNeedsNoRoomOnTheLink) {
  ResendWindow window({.batches_max = 3, .wire_bytes_max = 1000}, kKey);
  ASSERT_TRUE(window.add(entry(0, 900), soon()));
  EXPECT_EQ(window.add(entry(1, 900), soon()).error().code(), Errc::kTimedOut);
  ASSERT_TRUE(window.arrived(0));
  ASSERT_TRUE(window.add(entry(1, 900), soon()));
  EXPECT_EQ(window.add(entry(2, 900), soon()).error().code(), Errc::kTimedOut);

  EXPECT_EQ(window.acknowledge(0), 8 + 2 * kPageSize);
  EXPECT_EQ(window.add(entry(2, 900), soon()).error().code(), Errc::kTimedOut)
      << "the second is still on the link";
  EXPECT_EQ(window.acknowledge(1), 8 + 2 * kPageSize) << "arrived, too, then";
  EXPECT_TRUE(window.add(entry(2, 900), soon()));
}

TEST(ResendWindowTest, WakesWhoWaitsForRoom) {
  ResendWindow window({.batches_max = 1, .wire_bytes_max = 1000}, kKey);
  ASSERT_TRUE(window.add(entry(0), soon()));
  std::thread other([&] { EXPECT_TRUE(window.acknowledge(0)); });

  EXPECT_TRUE(window.add(entry(1), later()));
  other.join();
}

TEST(ResendWindowTest, ReturnsThePagesThatWereReferredTo) {
  ResendWindow window({.batches_max = 9, .wire_bytes_max = 1000}, kKey);
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(window.add(entry(i), soon()));
  ASSERT_TRUE(window.acknowledge(0));

  const ResentPages resent = window.pages({.sequence = 2, .refs = {1}}).value();

  EXPECT_EQ(resent.sequence, 2U);
  ASSERT_EQ(resent.pages.size(), kPageSize);
  EXPECT_EQ(resent.pages[0], std::byte{0xBB});
  EXPECT_EQ(resent.pages[1], std::byte{2});
}

TEST(ResendWindowTest, RefusesWhatIsNotUnderWay) {
  ResendWindow window({.batches_max = 9, .wire_bytes_max = 1000}, kKey);
  EXPECT_EQ(window.acknowledge(0).error().code(), Errc::kCorrupt);
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(window.add(entry(i), soon()));
  ASSERT_TRUE(window.acknowledge(0));

  EXPECT_EQ(window.acknowledge(0).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.acknowledge(3).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.arrived(0).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.arrived(3).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.pages({.sequence = 0, .refs = {0}}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.pages({.sequence = 3, .refs = {0}}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.pages({.sequence = 1, .refs = {2}}).error().code(), Errc::kCorrupt);
}

TEST(ResendWindowTest, WaitsUntilAllIsAcknowledged) {
  ResendWindow window({.batches_max = 9, .wire_bytes_max = 1000}, kKey);
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(window.add(entry(i), soon()));

  EXPECT_EQ(window.wait_until_empty(soon()).error().code(), Errc::kTimedOut);
  std::thread other([&] { EXPECT_TRUE(window.acknowledge(2)); });
  EXPECT_TRUE(window.wait_until_empty(later()));
  other.join();
}

TEST(ResendWindowTest, CloseWakesWhoWaits) {
  ResendWindow window({.batches_max = 1, .wire_bytes_max = 1000}, kKey);
  ASSERT_TRUE(window.add(entry(0), soon()));
  std::thread other([&] { window.close(); });

  EXPECT_EQ(window.add(entry(1), later()).error().code(), Errc::kUnavailable);
  EXPECT_EQ(window.wait_until_empty(later()).error().code(), Errc::kUnavailable);
  other.join();
}

TEST(ResendWindowTest, ReturnsThePagesThatDiffer) {
  ResendWindow window({.batches_max = 9, .wire_bytes_max = 1000}, kKey);
  const ResendWindow::Entry sent = entry(0);
  const auto page = [&](std::size_t at) {
    return digest_page(sent.stretch.bytes.subspan(at).first<kPageSize>(), kKey);
  };
  ASSERT_TRUE(window.add(entry(0), soon()));

  const ShortDigest first = shorten(page(8));
  const ShortDigest second = shorten(page(8 + kPageSize));
  const ResentPages none = window.differing({.sequence = 0, .digests = {first, second}}).value();
  const ResentPages one = window.differing({.sequence = 0, .digests = {first, first}}).value();

  EXPECT_TRUE(none.refs.empty());
  EXPECT_EQ(one.refs, std::vector<std::uint32_t>{1});
  ASSERT_EQ(one.pages.size(), kPageSize);
  EXPECT_EQ(one.pages[0], std::byte{0xBB});
  EXPECT_EQ(window.differing({.sequence = 0, .digests = {first}}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(window.differing({.sequence = 1, .digests = {}}).error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace samepage::migrator
