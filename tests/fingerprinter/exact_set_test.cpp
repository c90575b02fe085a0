// The promise under test: an exact set counts what a RAM image holds, and two of them say exactly
// what the guests have in common, as the fingerprints of the same pages estimate it.

#include "fingerprinter/exact_set.h"

#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/page.h"
#include "tests/fakes/fake_guest_memory.h"

namespace samepage::fingerprinter {
namespace {

constexpr HashSeed kSeed{7};
constexpr std::uint64_t kHole = UINT64_MAX;

/// An image whose pages have these contents; 0 is a page of zeros.
Fd image_of(const std::vector<std::uint64_t>& contents) {
  Fd file(::memfd_create("image", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(contents.size() * kPageSize)), 0);
  for (std::size_t i = 0; i < contents.size(); ++i) {
    if (contents[i] == kHole) continue;
    std::array<std::byte, kPageSize> page{};
    if (contents[i] != 0) page = fakes::FakeGuestMemory::page_of(contents[i]);
    EXPECT_EQ(::pwrite(file.get(), page.data(), kPageSize, static_cast<off_t>(i * kPageSize)),
              ssize_t{kPageSize});
  }
  return file;
}

ExactSet set_of(const std::vector<std::uint64_t>& contents) {
  return ExactSet::read(image_of(contents), kSeed).value();
}

TEST(ExactSetTest, CountsWhatAnImageHolds) {
  const ExactSet set = set_of({1, 2, kHole, 0, 2, 2, 0, kHole, 3});

  EXPECT_EQ(set.counts(), (PageCounts{.pages = 9, .zero = 2, .unique = 3, .duplicate = 2}));
}

TEST(ExactSetTest, SaysWhatGuestsShare) {
  const std::vector<ExactSet> guests = {set_of({1, 2, 3, 3, 0, 0}), set_of({2, 3, 4, kHole, 0}),
                                        set_of({3, 5})};

  EXPECT_EQ(common_pages(guests[0], guests[1]), 2U);
  EXPECT_EQ(common_pages(guests[1], guests[2]), 1U);
  const ExactSharing sharing = exact_sharing(guests);
  EXPECT_EQ(sharing.zero, 2U);
  EXPECT_EQ(sharing.within, 1U);
  EXPECT_EQ(sharing.between, 3U);
  EXPECT_EQ(sharing.total(), 6U);
}

TEST(ExactSetTest, RefusesWhatIsNoImage) {
  const Fd torn(::memfd_create("torn", MFD_CLOEXEC));
  EXPECT_EQ(ExactSet::read(torn, kSeed).error().code(), Errc::kInvalid);
  ASSERT_EQ(::ftruncate(torn.get(), 5000), 0);
  EXPECT_EQ(ExactSet::read(torn, kSeed).error().code(), Errc::kInvalid);
  EXPECT_EQ(ExactSet::read(Fd(), kSeed).error().code(), Errc::kIo);
}

}  // namespace
}  // namespace samepage::fingerprinter
