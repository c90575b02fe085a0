// The promise under test: guest RAM is read as it is, from outside, and nothing in the guest
// changes by it. A child process with one mapping stands in for QEMU.

#include "fingerprinter/guest_memory.h"

#include <array>
#include <csignal>
#include <cstring>
#include <numeric>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fingerprinter/guest_process.h"
#include "fingerprinter/page_scanner.h"
#include "fingerprinter/pagemap.h"
#include "tests/fingerprinter/held_memory.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kPages = 3001;  // No other mapping of the child has this size.

std::vector<std::uint64_t> pages_of(const std::vector<PageRun>& runs) {
  std::vector<std::uint64_t> pages;
  for (const PageRun& run : runs) {
    for (std::uint64_t i = 0; i < run.count; ++i) pages.push_back(run.first + i);
  }
  return pages;
}

std::uint64_t content_at(GuestMemory& memory, std::uint64_t page) {
  std::array<std::byte, kPageSize> bytes;
  const auto done = memory.read(page, bytes);
  EXPECT_TRUE(done) << done.error().message();
  std::uint64_t content = 0;
  std::memcpy(&content, bytes.data(), sizeof(content));
  return content;
}

/// Pages 10, 11 and 700 are written, 20 to 29 only read.
void touch_some(std::byte* ram) {
  write_page(ram, 10, 1);
  write_page(ram, 11, 2);
  write_page(ram, 700, 3);
  for (std::uint64_t page = 20; page < 30; ++page) {
    const volatile std::byte* byte = ram + page * kPageSize;
    static_cast<void>(*byte);
  }
}

TEST(GuestMemoryTest, ReadsWhatTheGuestWrote) {
  const HeldMemory held(Holding::kPrivate, kPages, touch_some);
  const auto memory = open_guest_memory(held.vm()).value();

  EXPECT_EQ(memory->pages(), kPages);
  EXPECT_EQ(content_at(*memory, 10), 1U);
  EXPECT_EQ(content_at(*memory, 11), 2U);
  EXPECT_EQ(content_at(*memory, 700), 3U);
  EXPECT_EQ(content_at(*memory, 25), 0U);
  EXPECT_EQ(content_at(*memory, kPages - 1), 0U);
}

TEST(GuestMemoryTest, PopulatedLeavesOutUntouchedPagesAndTheZeroPage) {
  const HeldMemory held(Holding::kPrivate, kPages, touch_some);
  const auto memory = open_guest_memory(held.vm()).value();

  EXPECT_EQ(pages_of(memory->populated().value()), (std::vector<std::uint64_t>{10, 11, 700}));
}

TEST(GuestMemoryTest, ReadingFaultsInNoUntouchedPage) {
  const HeldMemory held(Holding::kPrivate, kPages, touch_some);
  const auto memory = open_guest_memory(held.vm()).value();
  const std::uint64_t before = present_pages(held.vm());

  std::vector<std::byte> all(kPages * kPageSize, std::byte{0xFF});
  ASSERT_TRUE(memory->read(0, all));

  EXPECT_EQ(before, 13U);
  EXPECT_EQ(present_pages(held.vm()), before);
  EXPECT_EQ(all[0], std::byte{0});
  EXPECT_EQ(all[10 * kPageSize], std::byte{1});
}

TEST(GuestMemoryTest, PopulatedLeavesOutTheHugeZeroPage) {
  const HeldMemory held(Holding::kPrivate, 4096, [](std::byte* ram) {
    ::madvise(ram, 4096 * kPageSize, MADV_HUGEPAGE);
    write_page(ram, 0, 1);  // Makes the first 2 MiB a huge page of the guest's own.
    const volatile std::byte* byte = ram + 1024 * kPageSize;
    static_cast<void>(*byte);
  });
  if (present_pages(held.vm()) != 1024) GTEST_SKIP() << "this kernel gave no huge pages";
  const auto memory = open_guest_memory(held.vm()).value();

  const auto runs = memory->populated().value();

  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].first, 0U);
  EXPECT_EQ(runs[0].count, 512U);
}

TEST(GuestMemoryTest, BothWaysToFindPopulatedPagesAgree) {
  const HeldMemory held(Holding::kPrivate, kPages, touch_some);
  const auto process = GuestProcess::open(held.pid()).value();
  const auto ram = find_ram(process.mappings().value(), held.vm().memory_bytes).value();

  const auto scanned = scan_present(process.pagemap(), ram.address, kPages);
  if (!scanned && scanned.error().code() == Errc::kInvalid) GTEST_SKIP() << "before Linux 6.7";
  if (!FrameFlags::open()) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  const auto read = read_present(process.pagemap(), ram.address, kPages);

  EXPECT_EQ(pages_of(scanned.value()), pages_of(read.value()));
}

TEST(GuestMemoryTest, FindsRamThatTheKernelHasSplit) {
  const HeldMemory held(Holding::kPrivate, kPages, [](std::byte* ram) {
    touch_some(ram);
    ::madvise(ram + 100 * kPageSize, 50 * kPageSize, MADV_DONTDUMP);
  });
  const auto process = GuestProcess::open(held.pid()).value();
  const auto ram = find_ram(process.mappings().value(), held.vm().memory_bytes).value();
  ASSERT_LT(ram.first.end - ram.first.start, ram.bytes);

  const auto memory = open_guest_memory(held.vm()).value();

  EXPECT_EQ(pages_of(memory->populated().value()), (std::vector<std::uint64_t>{10, 11, 700}));
  EXPECT_EQ(content_at(*memory, 700), 3U);
}

TEST(GuestMemoryTest, SharedRamIsReadWithoutFillingItsHoles) {
  const HeldMemory held(Holding::kMemfd, kPages, touch_some);
  const auto memory = open_guest_memory(held.vm()).value();
  // Another process has touched this page; the guest's page table does not know it.
  const std::uint64_t content = 9;
  ASSERT_EQ(::pwrite(held.file().get(), &content, sizeof(content), 900 * off_t{kPageSize}), 8);
  struct stat before {};
  ASSERT_EQ(::fstat(held.file().get(), &before), 0);

  std::vector<std::byte> all(kPages * kPageSize);
  ASSERT_TRUE(memory->read(0, all));
  const auto populated = pages_of(memory->populated().value());

  struct stat after {};
  ASSERT_EQ(::fstat(held.file().get(), &after), 0);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
  EXPECT_EQ(all[11 * kPageSize], std::byte{2});
  EXPECT_EQ(all[900 * kPageSize], std::byte{9});
  // A page of a shared mapping that is only read becomes a real one: the guest has 20 to 29 too.
  EXPECT_EQ(populated.size(), 14U);
  EXPECT_EQ(populated.back(), 900U);
}

TEST(GuestMemoryTest, PrivateMapOfARamFileReadsTheFileWhereTheGuestTouchedNothing) {
  HeldMemory held(
      Holding::kPrivateFile, kPages, [](std::byte*) {},
      [](std::byte* ram) { write_page(ram, 40, 8); });
  const std::uint64_t content = 9;
  for (const off_t page : {40, 50}) {
    ASSERT_EQ(::pwrite(held.file().get(), &content, sizeof(content), page * off_t{kPageSize}), 8);
  }
  const auto memory = open_guest_memory(held.vm()).value();
  EXPECT_EQ(content_at(*memory, 40), 9U);
  held.act();

  EXPECT_EQ(content_at(*memory, 40), 8U);
  EXPECT_EQ(content_at(*memory, 50), 9U);
  EXPECT_EQ(pages_of(memory->populated().value()), (std::vector<std::uint64_t>{40}));
}

TEST(GuestMemoryTest, AGuestThatEndsIsNotFound) {
  for (const Holding holding : {Holding::kPrivate, Holding::kMemfd, Holding::kPrivateFile}) {
    HeldMemory held(holding, kPages, touch_some);
    const VmInfo vm = held.vm();
    const auto memory = open_guest_memory(vm).value();
    std::array<std::byte, kPageSize> page;
    ASSERT_TRUE(memory->read(10, page));

    held.end();

    EXPECT_EQ(memory->read(10, page).error().code(), Errc::kNotFound);
    EXPECT_EQ(memory->read(5, page).error().code(), Errc::kNotFound);
    EXPECT_EQ(memory->populated().error().code(), Errc::kNotFound);
    EXPECT_EQ(open_guest_memory(vm).error().code(), Errc::kNotFound);
  }
}

TEST(GuestMemoryTest, SealedRamIsLookedAtWhereItLiesButForItsHoles) {
  const HeldMemory held(Holding::kMemfd, kPages, touch_some);
  ASSERT_TRUE(open_guest_memory(held.vm()).value()->view({10, 2}).value().empty());
  ASSERT_EQ(::fcntl(held.file().get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const auto memory = open_guest_memory(held.vm()).value();

  const auto view = memory->view({10, 2}).value();
  ASSERT_EQ(view.size(), 2 * kPageSize);
  EXPECT_EQ(view[0], std::byte{1});
  EXPECT_EQ(view[kPageSize], std::byte{2});
  EXPECT_TRUE(memory->view({10, 3}).value().empty());
  struct stat before {};
  ASSERT_EQ(::fstat(held.file().get(), &before), 0);
  const Scan found = scan(*memory, {1}).value();
  struct stat after {};
  ASSERT_EQ(::fstat(held.file().get(), &after), 0);
  EXPECT_EQ(found.hashed.size(), 3U);
  EXPECT_EQ(found.zero, 10U);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
}

TEST(GuestMemoryTest, PopulatedWithinARangeIsPartOfTheWhole) {
  for (const Holding holding : {Holding::kPrivate, Holding::kMemfd}) {
    const HeldMemory held(holding, kPages, [](std::byte* ram) {
      for (const std::uint64_t page : {10, 11, 12, 700}) write_page(ram, page, page);
    });
    const auto memory = open_guest_memory(held.vm()).value();
    EXPECT_EQ(pages_of(memory->populated_within({11, 100}).value()),
              (std::vector<std::uint64_t>{11, 12}));
    EXPECT_EQ(pages_of(memory->populated_within({13, 687}).value()), std::vector<std::uint64_t>{});
    EXPECT_EQ(pages_of(memory->populated_within({700, 1}).value()),
              std::vector<std::uint64_t>{700});
  }
}

/// Ends the guest before the second batch is read.
class EndingMemory final : public GuestMemory {
 public:
  EndingMemory(GuestMemory& memory, HeldMemory& held) : memory_(memory), held_(held) {}

  std::uint64_t pages() const override { return memory_.pages(); }
  Result<std::vector<PageRun>> populated() override { return memory_.populated(); }
  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    if (++reads_ == 2) held_.end();
    return memory_.read(first, destination);
  }

 private:
  GuestMemory& memory_;
  HeldMemory& held_;
  int reads_ = 0;
};

TEST(GuestMemoryTest, AScanOfAGuestThatEndsMidwayIsNotFound) {
  HeldMemory held(Holding::kPrivate, kPages, [](std::byte* ram) {
    for (std::uint64_t page = 0; page < kPages; ++page) write_page(ram, page, page + 1);
  });
  const auto memory = open_guest_memory(held.vm()).value();
  EndingMemory ending(*memory, held);

  EXPECT_EQ(scan(ending, {1}).error().code(), Errc::kNotFound);
}

TEST(GuestMemoryTest, ALaterProcessWithTheSamePidIsNotReadInItsPlace) {
  // Both children inherit the mapping, so the second has the same bytes at the same address.
  void* ram = ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(ram, MAP_FAILED);
  ::madvise(ram, kPages * kPageSize, MADV_DONTDUMP);  // Keeps it a mapping of its own.
  write_page(static_cast<std::byte*>(ram), 0, 7);
  pid_t pid = ::fork();
  if (pid == 0) {
    for (;;) ::pause();
  }
  VmInfo vm;
  vm.memory_bytes = kPages * kPageSize;
  vm.pid = pid;
  const auto memory = open_guest_memory(vm).value();
  EXPECT_EQ(content_at(*memory, 0), 7U);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);

  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<std::uintptr_t>(&pid);
  arguments.set_tid_size = 1;
  const auto again = static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof(arguments)));
  if (again == 0) {
    for (;;) ::pause();
  }
  ::munmap(ram, kPages * kPageSize);
  if (again != pid) GTEST_SKIP() << "cannot choose a PID: needs CAP_CHECKPOINT_RESTORE";
  std::array<std::byte, kPageSize> page;
  EXPECT_EQ(memory->read(0, page).error().code(), Errc::kNotFound);
  EXPECT_EQ(memory->populated().error().code(), Errc::kNotFound);
  ::kill(again, SIGKILL);
  ::waitpid(again, nullptr, 0);
}

TEST(GuestMemoryTest, NoRamOfThatSizeIsNotFound) {
  const HeldMemory held(Holding::kPrivate, kPages, touch_some);
  VmInfo vm = held.vm();
  vm.memory_bytes += kPageSize;
  const auto opened = open_guest_memory(vm);
  EXPECT_EQ(opened.error().code(), Errc::kNotFound);
  EXPECT_NE(opened.error().message().find("not one block"), std::string::npos);
}

TEST(GuestMemoryTest, PagesThatItsFileHasLostAreAnIoError) {
  for (const Holding holding : {Holding::kMemfd, Holding::kPrivateFile}) {
    const HeldMemory held(holding, kPages, touch_some);
    const auto memory = open_guest_memory(held.vm()).value();
    ASSERT_EQ(::ftruncate(held.file().get(), 900 * off_t{kPageSize}), 0);

    std::vector<std::byte> pages(2 * kPageSize);
    EXPECT_EQ(memory->read(899, pages).error().code(), Errc::kIo);
    EXPECT_EQ(content_at(*memory, 10), 1U);
  }
}

TEST(GuestMemoryTest, AnotherUsersGuestIsAnIoError) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  const HeldMemory held(Holding::kPrivate, kPages, touch_some);
  const pid_t stranger = ::fork();
  if (stranger == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    const auto memory = open_guest_memory(held.vm());
    ::_exit(!memory && memory.error().code() == Errc::kIo ? 0 : 1);
  }
  int status = 0;
  ::waitpid(stranger, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(FindRamTest, PrefersTheOneMappingAndRefusesToGuess) {
  const std::string_view split =
      "1000-3000 rw-p 00000000 00:00 0 \n"
      "3000-5000 rw-p 00000000 00:00 0 \n"
      "5000-6000 ---p 00000000 00:00 0 \n";
  const std::string whole =
      std::string(split) + "10000-14000 rw-s 00002000 00:01 77    /memfd:pc.ram (deleted)\n";
  const std::string executable = "20000-24000 rwxp 00000000 00:00 0 \n";

  EXPECT_EQ(find_ram(parse_maps(split), 0x4000).value().address, 0x1000U);
  EXPECT_EQ(find_ram(parse_maps(whole + executable), 0x4000).value().address, 0x10000U);
  EXPECT_EQ(find_ram(parse_maps(whole), 0x4000).value().first.inode, 77U);
  EXPECT_EQ(find_ram(parse_maps(split), 0x2000).error().code(), Errc::kNotFound);
  EXPECT_EQ(find_ram(parse_maps(split), 0x5000).error().code(), Errc::kNotFound);
}

TEST(FindRamTest, TakesALittleMoreThanWasAskedFor) {
  const auto block = [](const std::string& end) {
    return find_ram(parse_maps("1000000-" + end + " rw-p 00000000 00:00 0 \n"), 0x1000000);
  };
  EXPECT_EQ(block("2002000").value().bytes, 0x1002000U);
  EXPECT_EQ(block("203f000").value().bytes, 0x103f000U);
  EXPECT_EQ(block("2040000").error().code(), Errc::kNotFound);
  EXPECT_EQ(block("1fff000").error().code(), Errc::kNotFound);

  const std::string_view several =
      "1000000-2002000 rw-p 00000000 00:00 0 \n"
      "3000000-4000000 rw-p 00000000 00:00 0 \n";
  EXPECT_EQ(find_ram(parse_maps(several), 0x1000000).value().address, 0x3000000U);
}

}  // namespace
}  // namespace samepage::fingerprinter
