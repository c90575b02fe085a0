// The promise under test: a RAM file is read without becoming larger, and the pages of a private
// mapping of it that were written are told from the others.
#include "fingerprinter/ram_file.h"

#include <array>
#include <cstring>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/page.h"
#include "fingerprinter/own_pages.h"
#include "tests/core/temporary_folder.h"

namespace samepage::fingerprinter {
namespace {

namespace fs = std::filesystem;

/// Of a size that nothing else in this process has.
constexpr std::uint64_t kPages = 1031;

class RamFileTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = Fd(::open(path_.c_str(), O_RDWR | O_CREAT, 0600));
    ASSERT_EQ(::ftruncate(file_.get(), kPages * kPageSize), 0);
    for (const std::uint64_t page : {3U, 4U, 700U}) {
      ASSERT_EQ(::pwrite(file_.get(), "page", 4, static_cast<off_t>(page * kPageSize)), 4);
    }
  }
  std::uint64_t allocated() const {
    struct stat found {};
    EXPECT_EQ(::stat(path_.c_str(), &found), 0);
    return static_cast<std::uint64_t>(found.st_blocks);
  }
  static VmInfo self() {
    return {.id = {}, .name = "self", .memory_bytes = kPages * kPageSize, .pid = ::getpid()};
  }

  TemporaryFolder folder_;
  const fs::path path_ = folder_.file("pc.ram");
  Fd file_;
};

TEST_F(RamFileTest, ReadsWithoutFillingHoles) {
  const std::uint64_t before = allocated();
  const auto memory = open_ram_file(path_).value();
  EXPECT_EQ(memory->pages(), kPages);
  std::uint64_t populated = 0;
  const auto runs = memory->populated().value();
  for (const PageRun& run : runs) populated += run.count;
  EXPECT_GE(populated, 3U);
  EXPECT_LT(populated, kPages);
  std::array<std::byte, 2 * kPageSize> pages{};
  ASSERT_TRUE(memory->read(4, pages));
  EXPECT_EQ(std::memcmp(pages.data(), "page", 4), 0);
  EXPECT_TRUE(is_zero(std::span(pages).last<kPageSize>()));
  EXPECT_EQ(memory->read(kPages, pages).error().code(), Errc::kIo);
  EXPECT_EQ(allocated(), before);
}

TEST_F(RamFileTest, SaysWhatIsWrong) {
  EXPECT_EQ(open_ram_file(path_.string() + "x").error().code(), Errc::kNotFound);
  ASSERT_EQ(::ftruncate(file_.get(), 5), 0);
  EXPECT_EQ(open_ram_file(path_).error().code(), Errc::kIo);
}

TEST_F(RamFileTest, TellsTheGuestsOwnPagesFromTheFiles) {
  EXPECT_FALSE(own_pages(self(), path_)) << "nothing maps it";
  void* const at = ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_NORESERVE, file_.get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  auto* const bytes = static_cast<volatile char*>(at);
  const char read = bytes[3 * kPageSize];
  EXPECT_EQ(read, 'p');
  bytes[4 * kPageSize] = 'x';

  const auto own = own_pages(self(), path_);
  const auto other = own_pages(self(), "/proc/self/exe");
  ::munmap(at, kPages * kPageSize);

  ASSERT_TRUE(own) << own.error().message();
  EXPECT_FALSE((*own)[3]);
  EXPECT_TRUE((*own)[4]);
  EXPECT_FALSE((*own)[5]);
  EXPECT_EQ(other.error().code(), Errc::kInvalid);
}

TEST_F(RamFileTest, ASharedMappingIsNoForks) {
  void* const at =
      ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  const auto own = own_pages(self(), path_);
  ::munmap(at, kPages * kPageSize);
  EXPECT_EQ(own.error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::fingerprinter
