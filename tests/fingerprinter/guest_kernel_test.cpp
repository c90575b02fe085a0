// The promise under test: what a guest's kernel uses each page for is told from its RAM alone, by
// name, wherever KASLR put the kernel; RAM without such a kernel is refused with the reason.

#include "fingerprinter/guest_kernel.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fingerprinter/made_guest.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kMoved = 0x1d20'0000;

struct Named {
  explicit Named(const MadeGuest& guest) : ram(guest.image()) {
    names = GuestKernel::find(ram).value().name_pages();
  }

  PageKind kind(std::size_t frame) const { return names.uses[frame].kind; }
  std::string word(std::size_t frame) const { return names.words[names.uses[frame].word]; }

  RamImage ram;
  PageNames names;
};

class GuestKernelTest : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(GuestKernelTest, NamesEachPageByWhatTheKernelUsesItFor) {
  const Named named{MadeGuest(GetParam())};

  EXPECT_EQ(named.kind(0), PageKind::kFirmware);
  EXPECT_EQ(named.kind(MadeGuest::kInfo), PageKind::kBootMemory);
  EXPECT_EQ(named.kind(MadeGuest::kRoot), PageKind::kPageTable);
  EXPECT_EQ(named.kind(MadeGuest::kTables), PageKind::kPageTable);
  EXPECT_EQ(named.kind(MadeGuest::kMemoryMap), PageKind::kMemoryMap);
  EXPECT_EQ(named.kind(MadeGuest::kText), PageKind::kKernelText);
  EXPECT_EQ(named.kind(MadeGuest::kRodata), PageKind::kKernelRodata);
  EXPECT_EQ(named.kind(MadeGuest::kData), PageKind::kKernelData);
  EXPECT_EQ(named.kind(MadeGuest::kLog), PageKind::kLogBuffer);
  EXPECT_EQ(named.kind(MadeGuest::kStack), PageKind::kKernelStack);
  EXPECT_EQ(named.kind(MadeGuest::kVmalloc), PageKind::kVmalloc);
  EXPECT_EQ(named.kind(MadeGuest::kFreePage), PageKind::kFree);
  EXPECT_EQ(named.kind(MadeGuest::kProcessTable), PageKind::kPageTable);
  EXPECT_EQ(named.kind(MadeGuest::kOther), PageKind::kOtherKernel);
}

TEST_P(GuestKernelTest, NamesCachesFilesAndProcesses) {
  const Named named{MadeGuest(GetParam())};

  EXPECT_EQ(named.kind(MadeGuest::kSlab), PageKind::kSlab);
  EXPECT_EQ(named.word(MadeGuest::kSlab), "dentry");
  EXPECT_EQ(named.kind(MadeGuest::kSlabTail), PageKind::kSlab);
  EXPECT_EQ(named.word(MadeGuest::kSlabTail), "dentry");
  EXPECT_EQ(named.kind(MadeGuest::kFile), PageKind::kPageCache);
  EXPECT_EQ(named.word(MadeGuest::kFile), "ext4:/lib/libc.so.6");
  EXPECT_EQ(named.word(MadeGuest::kDevice), "block device 254:1");
  EXPECT_EQ(named.kind(MadeGuest::kShared), PageKind::kSharedMemory);
  EXPECT_EQ(named.kind(MadeGuest::kAnonymous), PageKind::kProcess);
  EXPECT_EQ(named.word(MadeGuest::kAnonymous), "nginx");
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutKaslr, GuestKernelTest, ::testing::Values(0, kMoved));

TEST(GuestKernelFindTest, SaysWhichKernelItIsAndWhereItLies) {
  const MadeGuest guest(kMoved);
  const RamImage ram = guest.image();

  const GuestKernel kernel = GuestKernel::find(ram).value();

  EXPECT_EQ(kernel.release(), "6.1.0-made");
  EXPECT_EQ(kernel.offset(), kMoved);
}

TEST(GuestKernelFindTest, SaysWhatIsMissing) {
  const std::vector<std::byte> zeros(4 * kPageSize);
  const RamImage empty{std::span(zeros)};
  const auto nothing = GuestKernel::find(empty);
  EXPECT_EQ(nothing.error().code(), Errc::kNotFound);
  EXPECT_NE(nothing.error().message().find("VMCOREINFO"), std::string::npos);

  MadeGuest guest;
  guest.put(MadeGuest::kRodata, 112, 0);
  const RamImage untyped = guest.image();
  const auto no_types = GuestKernel::find(untyped);
  EXPECT_EQ(no_types.error().code(), Errc::kNotFound);
  EXPECT_NE(no_types.error().message().find("BTF"), std::string::npos);

  MadeGuest unmapped;
  unmapped.put(MadeGuest::kRoot, 511 * 8, 0);
  const RamImage lost = unmapped.image();
  EXPECT_EQ(GuestKernel::find(lost).error().code(), Errc::kNotFound);
}

TEST(GuestKernelFindTest, EndsOnTablesThatNameThemselves) {
  MadeGuest guest;
  for (std::size_t i = 256; i < 500; ++i) {
    const std::uint64_t self = MadeGuest::kRoot * kPageSize | 3U;
    if (i != 273 && i != 468 && i != 402) guest.put(MadeGuest::kRoot, i * 8, self);
  }

  const Named named{guest};

  EXPECT_EQ(named.word(MadeGuest::kFile), "ext4:/lib/libc.so.6");
}

TEST(RamImageTest, RefusesWhatIsNoImage) {
  const Fd torn(::memfd_create("torn", MFD_CLOEXEC));
  EXPECT_EQ(RamImage::map(torn).error().code(), Errc::kInvalid);
  ASSERT_EQ(::ftruncate(torn.get(), 5000), 0);
  EXPECT_EQ(RamImage::map(torn).error().code(), Errc::kInvalid);
  EXPECT_EQ(RamImage::map(Fd()).error().code(), Errc::kIo);
}

TEST(RamImageTest, KnowsWhichRamIsAbove4GiB) {
  const Fd file(::memfd_create("large", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), off_t{4} << 30U), 0);
  const RamImage ram = RamImage::map(file).value();

  constexpr std::uint64_t kGib = 1U << 30U;
  EXPECT_EQ(ram.offset_of(3 * kGib - 1), 3 * kGib - 1);
  EXPECT_EQ(ram.offset_of(3 * kGib), std::nullopt);
  EXPECT_EQ(ram.offset_of(4 * kGib), 3 * kGib);
  EXPECT_EQ(ram.offset_of(5 * kGib), std::nullopt);
  EXPECT_EQ(ram.frame_of(3 * kGib / kPageSize), 4 * kGib / kPageSize);
}

}  // namespace
}  // namespace samepage::fingerprinter
