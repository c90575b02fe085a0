// The promise under test: each page of a guest counts once, by where another guest has the same
// content, under its name, and with the cause of its difference.

#include "fingerprinter/ram_comparison.h"

#include <array>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/fakes/fake_guest_memory.h"
#include "tests/fingerprinter/made_guest.h"

namespace samepage::fingerprinter {
namespace {

using Page = std::array<std::byte, kPageSize>;

/// Guests that live as long as their bytes, which are here.
class RamComparisonTest : public ::testing::Test {
 protected:
  /// Pages of these contents, of one kind.
  NamedRam guest_of(const std::vector<std::uint64_t>& contents, PageKind kind = PageKind::kSlab) {
    std::vector<std::byte>& bytes = kept_.emplace_back(contents.size() * kPageSize);
    for (std::size_t i = 0; i < contents.size(); ++i) {
      const auto page = fakes::FakeGuestMemory::page_of(contents[i]);
      std::memcpy(bytes.data() + i * kPageSize, page.data(), kPageSize);
    }
    PageNames names;
    names.words.emplace_back("dentry");
    names.uses.assign(contents.size(), {.kind = kind, .word = 1});
    return {RamImage(std::span(bytes)), std::move(names)};
  }

 private:
  std::vector<std::vector<std::byte>> kept_;
};

/// A page of words, of which the first `count` are these.
Page words(std::size_t count, std::uint64_t first, std::uint64_t step) {
  Page page{};
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t word = first + i * step;
    std::memcpy(page.data() + i * 8, &word, sizeof word);
  }
  return page;
}

TEST_F(RamComparisonTest, CountsPagesByWhereTheOtherHasThem) {
  const NamedRam a = guest_of({1, 2, 0, 3, 4, 4});
  const NamedRam b = guest_of({1, 5, 0, 2, 0, 4});

  const Divergence seen = compare(a, b);

  EXPECT_EQ(seen.zero, 1U);
  EXPECT_EQ(seen.all.same_place, 2U);
  EXPECT_EQ(seen.all.elsewhere, 2U);
  EXPECT_EQ(seen.all.different, 1U);
  EXPECT_EQ(seen.by_kind[static_cast<std::size_t>(PageKind::kSlab)].total(), 5U);
  EXPECT_EQ((seen.by_word.at({PageKind::kSlab, "dentry"}).different), 1U);
  EXPECT_EQ(seen.different_named(), 1U);
}

TEST_F(RamComparisonTest, SumsOverPairs) {
  const NamedRam a = guest_of({1, 2});
  const NamedRam b = guest_of({1, 3}, PageKind::kOtherKernel);

  Divergence sum = compare(a, b);
  sum += compare(b, a);

  EXPECT_EQ(sum.all.same_place, 2U);
  EXPECT_EQ(sum.all.different, 2U);
  EXPECT_EQ(sum.different_named(), 1U);
  EXPECT_EQ(sum.different_by_cause[static_cast<std::size_t>(Cause::kOtherUse)], 2U);
}

TEST_F(RamComparisonTest, GuestsOfDifferentSizesCompare) {
  const Divergence seen = compare(guest_of({1, 2, 3}), guest_of({3}));

  EXPECT_EQ(seen.all.elsewhere, 1U);
  EXPECT_EQ(seen.all.different, 2U);
}

TEST_F(RamComparisonTest, KernelsThatDifferByKaslrOnlyDifferInWhatNamesAddresses) {
  const MadeGuest here(0);
  const MadeGuest there(0x1d20'0000);
  const NamedRam a = NamedRam::of(here.image());
  const NamedRam b = NamedRam::of(there.image());

  const Divergence seen = compare(a, b);

  EXPECT_EQ(a.why_unnamed(), "");
  EXPECT_EQ(seen.by_kind[static_cast<std::size_t>(PageKind::kKernelText)].different, 1U);
  EXPECT_EQ(seen.by_kind[static_cast<std::size_t>(PageKind::kSlab)].different, 0U);
  EXPECT_EQ(seen.different_named(), seen.all.different);
}

TEST_F(RamComparisonTest, WithoutAKernelPagesHaveNoNamesAndTheReasonIsKept) {
  const std::vector<std::byte> bytes(kPageSize, std::byte{1});

  const NamedRam ram = NamedRam::of(RamImage(std::span(bytes)));

  EXPECT_NE(ram.why_unnamed(), "");
  EXPECT_EQ(ram.kind(0), PageKind::kUnknown);
}

TEST(CauseTest, IsToldFromHowPagesDiffer) {
  constexpr std::uint64_t kText = 0x6c6f'6720'6c69'6e65;
  EXPECT_EQ(cause_of(words(9, 0xffff'8881'0000'0000, 64), words(9, 0xffff'9991'0000'0000, 64)),
            Cause::kAddresses);
  EXPECT_EQ(cause_of(words(9, 0x8000'0000'0123'4063, 4096), words(9, 0x8000'0000'0777'0063, 4096)),
            Cause::kAddresses);
  EXPECT_EQ(cause_of(words(9, 1'000'000'000, 10), words(9, 1'000'500'000, 10)), Cause::kNumbers);
  EXPECT_EQ(cause_of(words(9, kText, 0), words(9, kText + 0x0101'0101'0101'0100, 0)), Cause::kText);
  EXPECT_EQ(cause_of(words(9, 0x1234'5678'9abc'def0, 0x9e37'79b9'0000'0000),
                     words(9, 0x7777'1111'2222'3338, 0x1e37'79b9'0000'0000)),
            Cause::kOther);
  EXPECT_EQ(cause_of(words(512, 0x1234'5678'9abc'def0, 0x9e37'79b9'0000'0000),
                     words(512, 0x7777'1111'2222'3338, 0x1e37'79b9'0000'0000)),
            Cause::kRewritten);
}

}  // namespace
}  // namespace samepage::fingerprinter
