// The promise under test: the checkpoint of a guest that left has what its relays sent of its
// memory, also what was still to be written then.

#include "tools/samepaged/departing_pages.h"

#include <algorithm>
#include <array>
#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"

namespace samepage::agent {
namespace {

using migrator::CutStretch;
using Token = migrator::StreamToken;
using Kept = std::shared_ptr<const pagecache::Checkpoint>;

constexpr std::size_t kPages = 3;

/// Records of the pages from `first` on, each full of its number; the last one is of another block.
CutStretch stretch_from(std::uint64_t first) {
  constexpr std::size_t kRecord = 8 + kPageSize;
  const auto slab = std::make_shared<migrator::Slab>(kPages * kRecord);
  CutStretch stretch;
  stretch.bytes = {.slab = slab, .bytes = slab->bytes().first(kPages * kRecord)};
  for (std::size_t i = 0; i < kPages; ++i) {
    const auto record = stretch.bytes.bytes.subspan(i * kRecord, kRecord);
    std::ranges::fill(record, static_cast<std::byte>(first + i));
    stretch.tokens.push_back({.token = {.kind = Token::Kind::kPage,
                                        .bytes = record,
                                        .header = (first + i) * kPageSize | 8U,
                                        .in_main_block = i + 1 < kPages}});
  }
  return stretch;
}

class DepartingPagesTest : public ::testing::Test {
 protected:
  std::unique_ptr<DepartingPages> depart() {
    return std::make_unique<DepartingPages>(
        pagecache::CheckpointWriter::create({.folder = folder_.file("checkpoints"),
                                             .bytes_max = 1U << 30U,
                                             .disk_free_min = 0,
                                             .seed = {4}})
            .value());
  }

  TemporaryFolder folder_;
};

TEST_F(DepartingPagesTest, EveryPageOfTheGuestsMemoryIsKept) {
  const auto departing = depart();
  for (std::uint64_t first = 1; first < 200; first += kPages) departing->saw(stretch_from(first));
  std::promise<Kept> kept;
  departing->guest_left([&](Kept checkpoint) { kept.set_value(std::move(checkpoint)); });

  const Kept checkpoint = kept.get_future().get();
  EXPECT_EQ(checkpoint->pages().size(), 2U * 67);
  for (const auto& [number, hash] : checkpoint->pages()) {
    EXPECT_NE(number % kPages, 0U);
    std::array<std::byte, kPageSize> page{};
    ASSERT_TRUE(checkpoint->read(number, page));
    EXPECT_TRUE(std::ranges::all_of(page, [n = number](std::byte b) { return b == std::byte(n); }));
    EXPECT_EQ(hash, hash_page(page, {4}));
  }
}

TEST_F(DepartingPagesTest, AGuestThatStaysLeavesNothingBehind) {
  const auto departing = depart();
  const CutStretch stretch = stretch_from(1);
  departing->saw(stretch);
  departing->stop();
  while (!departing->done()) std::this_thread::yield();
  departing->saw(stretch);
  EXPECT_EQ(stretch.bytes.slab.use_count(), 1) << "its pages are still held";
}

TEST_F(DepartingPagesTest, AnEarlyEndKeepsWhatWasWritten) {
  Kept kept;
  auto departing = depart();
  for (std::uint64_t first = 1; first < 200; first += kPages) departing->saw(stretch_from(first));
  departing->guest_left([&](Kept checkpoint) { kept = std::move(checkpoint); });
  departing.reset();
  ASSERT_TRUE(kept);
  EXPECT_LE(kept->pages().size(), 2U * 67);
}

}  // namespace
}  // namespace samepage::agent
