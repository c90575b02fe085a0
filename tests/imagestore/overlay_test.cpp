// What a VM wrote is there: after any process ended at any moment, and what was flushed after a
// power cut, which a test plays by taking the map away and bytes off the log. A reference in memory
// says what each byte is.
#include "imagestore/overlay.h"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <map>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kPages = 300;

VersionId version_of(std::uint8_t number) {
  VersionId id;
  id.bytes.fill(std::byte{number});
  return id;
}

/// A base whose pages are filled with a pattern of their number.
Result<void> read_pattern(std::uint64_t page, PageBuffer bytes) {
  std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(page * 7 + 1));
  return {};
}

class OverlayTest : public ::testing::Test {
 protected:
  OverlayTest() : bytes_(kPages * kPageSize - 100) {
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i] = static_cast<std::byte>(i / kPageSize * 7 + 1);
    }
    EXPECT_TRUE(Overlay::create(folder(), {.base = version_of(1), .size_bytes = bytes_.size()}));
    open();
  }

  std::filesystem::path folder() const { return scratch_ / "overlay"; }

  void open() {
    overlay_.reset();
    auto opened = Overlay::open(folder());
    ASSERT_TRUE(opened) << opened.error().message();
    overlay_ = *std::move(opened);
  }

  void write(std::uint64_t offset, std::size_t size, std::byte value) {
    const std::vector<std::byte> bytes(size, value);
    const auto written = overlay_->write(offset, bytes, read_pattern);
    ASSERT_TRUE(written) << written.error().message();
    std::fill_n(bytes_.begin() + static_cast<long>(offset), size, value);
  }

  void zero(std::uint64_t offset, std::size_t size) {
    ASSERT_TRUE(overlay_->zero(offset, size, read_pattern));
    std::fill_n(bytes_.begin() + static_cast<long>(offset), size, std::byte{0});
  }

  std::vector<std::byte> read_page(std::uint64_t page) const {
    std::vector<std::byte> bytes(kPageSize);
    switch (overlay_->run_at(page, page + 1).state) {
      case PageState::kBase:
        EXPECT_TRUE(read_pattern(page, std::span(bytes).first<kPageSize>()));
        break;
      case PageState::kWritten:
        EXPECT_TRUE(overlay_->read(page * kPageSize, bytes));
        break;
      case PageState::kZero:
        break;
    }
    return bytes;
  }

  void expect_all(const std::vector<std::byte>& expected) const {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const auto bytes = read_page(page);
      const std::size_t at = page * kPageSize;
      const std::size_t size = std::min(kPageSize, expected.size() - at);
      ASSERT_TRUE(std::equal(bytes.begin(), bytes.begin() + static_cast<long>(size),
                             expected.begin() + static_cast<long>(at)))
          << "page " << page;
    }
  }

  void random_write(std::mt19937_64& random) {
    const std::uint64_t offset = random() % bytes_.size();
    const std::size_t size = 1 + random() % std::min<std::size_t>(bytes_.size() - offset, 40'000);
    if (random() % 4 == 0) {
      zero(offset, size);
    } else {
      write(offset, size, static_cast<std::byte>(random()));
    }
  }

  Scratch scratch_;
  std::vector<std::byte> bytes_;
  std::unique_ptr<Overlay> overlay_;
};

TEST_F(OverlayTest, ReadsWhatWasWrittenWhateverTheRange) {
  std::mt19937_64 random(test_seed());

  for (int i = 0; i < 300; ++i) random_write(random);

  expect_all(bytes_);
  EXPECT_EQ(overlay_->root().base, version_of(1));
}

TEST_F(OverlayTest, KeepsUnflushedWritesWhenTheProcessEnds) {
  std::mt19937_64 random(test_seed());
  for (int i = 0; i < 100; ++i) random_write(random);

  open();

  expect_all(bytes_);
}

TEST_F(OverlayTest, KeepsAcknowledgedWritesOfAProcessThatWasKilled) {
  std::mt19937_64 random(test_seed());
  overlay_.reset();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);

  const pid_t child = ::fork();
  if (child == 0) {
    auto overlay = Overlay::open(folder());
    for (std::uint64_t i = 0;; ++i) {
      const std::uint64_t page = i * 37 % kPages;
      const std::vector<std::byte> bytes(100, static_cast<std::byte>(i + 1));
      if (!overlay || !(*overlay)->write(page * kPageSize, bytes, read_pattern)) ::_exit(1);
      if (i % 50 == 49 && !(*overlay)->flush()) ::_exit(1);
      if (::write(pipe[1], &i, sizeof i) != sizeof i) ::_exit(1);
    }
  }
  ::close(pipe[1]);
  std::uint64_t acknowledged = 0;
  const std::uint64_t enough = 100 + random() % 500;
  while (acknowledged < enough) {
    ASSERT_EQ(::read(pipe[0], &acknowledged, sizeof acknowledged), ssize_t{sizeof acknowledged});
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  while (::read(pipe[0], &acknowledged, sizeof acknowledged) == ssize_t{sizeof acknowledged}) {
  }
  ::close(pipe[0]);

  open();
  std::map<std::uint64_t, std::uint64_t> last;
  for (std::uint64_t i = 0; i <= acknowledged; ++i) last[i * 37 % kPages] = i;
  for (const auto& [page, write] : last) {
    const auto value = std::to_integer<std::uint8_t>(read_page(page).front());
    const auto expected = static_cast<std::uint8_t>(write + 1);
    // The one write behind the last acknowledged may be there.
    const auto next = static_cast<std::uint8_t>(acknowledged + 2);
    const bool may_be_next = (acknowledged + 1) * 37 % kPages == page && value == next;
    EXPECT_TRUE(value == expected || may_be_next) << "page " << page;
  }
}

TEST_F(OverlayTest, KeepsWhatWasFlushedThroughAPowerCut) {
  std::mt19937_64 random(test_seed());
  for (int i = 0; i < 100; ++i) random_write(random);
  ASSERT_TRUE(overlay_->flush());
  const auto flushed = bytes_;
  // Written to pages of the base, and never flushed: gone, and the pages are as they were.
  for (std::uint64_t page = 0; page < kPages; ++page) {
    if (overlay_->run_at(page, page + 1).state != PageState::kBase) continue;
    write(page * kPageSize, 10, std::byte{0xee});
  }
  overlay_.reset();
  std::filesystem::remove(folder() / "map");

  open();

  expect_all(flushed);
}

TEST_F(OverlayTest, CutsATornRecordOff) {
  write(0, kPageSize, std::byte{1});
  ASSERT_TRUE(overlay_->flush());
  const auto before = std::filesystem::file_size(folder() / "log");
  write(5 * kPageSize, kPageSize, std::byte{2});
  ASSERT_TRUE(overlay_->flush());
  overlay_.reset();
  const auto whole = std::filesystem::file_size(folder() / "log");
  for (auto size = whole - 1; size >= before; --size) {
    std::filesystem::resize_file(folder() / "log", size);
    std::filesystem::remove(folder() / "map");
    open();
    EXPECT_EQ(overlay_->run_at(0, kPages).count, 1U);
    EXPECT_EQ(overlay_->run_at(5, 6).state, PageState::kBase);
    EXPECT_EQ(std::filesystem::file_size(folder() / "log"), before);
    overlay_.reset();
  }
}

TEST_F(OverlayTest, CompactsItsLog) {
  std::mt19937_64 random(test_seed());
  constexpr std::uint64_t kSmall = 2'048;
  overlay_.reset();
  overlay_ = Overlay::open(folder(), kSmall).value();
  std::uintmax_t largest = 0;
  for (int i = 0; i < 1'500; ++i) {
    const std::uint64_t page = random() % (kPages - 1);
    const PageState state = overlay_->run_at(page, page + 1).state;
    if (state == PageState::kWritten) {
      zero(page * kPageSize, kPageSize);
    } else {
      write(page * kPageSize, kPageSize, std::byte{9});
    }
    if (i % 20 == 0) {
      ASSERT_TRUE(overlay_->flush());
    }
    if (i % 20 == 0) largest = std::max(largest, std::filesystem::file_size(folder() / "log"));
  }
  ASSERT_TRUE(overlay_->flush());
  overlay_.reset();
  std::filesystem::remove(folder() / "map");

  open();

  expect_all(bytes_);
  EXPECT_LT(largest, 4 * kSmall);
}

TEST_F(OverlayTest, FreezesOneMomentWhileWritesGoOn) {
  std::mt19937_64 random(test_seed());
  for (int i = 0; i < 200; ++i) random_write(random);
  const auto at_freeze = bytes_;
  ASSERT_TRUE(overlay_->freeze());
  EXPECT_EQ(overlay_->freeze().error().code(), Errc::kInvalid);
  for (int i = 0; i < 100; ++i) random_write(random);

  std::vector<bool> seen(kPages);
  std::uint64_t pages = 0;
  const auto visited = overlay_->visit_frozen(
      [&](const StateRun& run, std::span<const std::byte> bytes) -> Result<void> {
        for (std::uint64_t i = 0; i < run.count; ++i) {
          const std::uint64_t page = run.first + i;
          seen[page] = true;
          std::vector<std::byte> content(kPageSize);
          if (run.state == PageState::kWritten) {
            std::copy_n(bytes.begin() + static_cast<long>(i * kPageSize), kPageSize,
                        content.begin());
          }
          const std::size_t size = std::min(kPageSize, at_freeze.size() - page * kPageSize);
          EXPECT_TRUE(std::equal(content.begin(), content.begin() + static_cast<long>(size),
                                 at_freeze.begin() + static_cast<long>(page * kPageSize)))
              << page;
          ++pages;
        }
        // The guest goes on between what is handed out.
        random_write(random);
        return {};
      });
  ASSERT_TRUE(visited);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    if (seen[page]) continue;
    EXPECT_EQ(at_freeze[page * kPageSize], static_cast<std::byte>(page * 7 + 1)) << page;
  }
  ASSERT_TRUE(overlay_->finish_commit(version_of(2)));

  expect_all(bytes_);
  EXPECT_EQ(overlay_->committed(), version_of(2));
  const auto usage = overlay_->usage();
  EXPECT_LT(usage.dirty_pages, usage.written_pages + usage.zero_pages);
  open();
  EXPECT_EQ(overlay_->committed(), version_of(2));
  expect_all(bytes_);
}

TEST_F(OverlayTest, AnAbandonedCommitLeavesEverythingDirty) {
  write(0, 10 * kPageSize, std::byte{1});
  const auto dirty = overlay_->usage().dirty_pages;
  ASSERT_TRUE(overlay_->freeze());
  write(3 * kPageSize, kPageSize, std::byte{2});

  overlay_->abandon_commit();

  EXPECT_EQ(overlay_->usage().dirty_pages, dirty);
  expect_all(bytes_);
  EXPECT_TRUE(overlay_->freeze());
}

TEST_F(OverlayTest, IsOpenedOnce) {
  EXPECT_EQ(Overlay::open(folder()).error().code(), Errc::kUnavailable);
  EXPECT_EQ(Overlay::open(scratch_ / "other").error().code(), Errc::kNotFound);
  EXPECT_EQ(Overlay::create(folder(), overlay_->root()).error().code(), Errc::kInvalid);
}

TEST_F(OverlayTest, RefusesADamagedHeader) {
  overlay_.reset();
  auto log = read_file(folder() / "log");
  log[20] ^= std::byte{1};
  write_file(folder() / "log", log);

  EXPECT_EQ(Overlay::open(folder()).error().code(), Errc::kCorrupt);
}

TEST_F(OverlayTest, ConcurrentWritersOfOnePageLoseNothing) {
  std::vector<std::jthread> writers;
  for (std::size_t writer = 0; writer < 8; ++writer) {
    writers.emplace_back([&, writer] {
      const std::vector<std::byte> bytes(512, static_cast<std::byte>(writer + 100));
      for (std::uint64_t page = 0; page < 200; ++page) {
        ASSERT_TRUE(overlay_->write(page * kPageSize + writer * 512, bytes, read_pattern));
      }
    });
  }
  writers.clear();

  for (std::uint64_t page = 0; page < 200; ++page) {
    const auto bytes = read_page(page);
    for (std::size_t i = 0; i < kPageSize; ++i) {
      ASSERT_EQ(bytes[i], static_cast<std::byte>(i / 512 + 100)) << page << " " << i;
    }
  }
}

}  // namespace
}  // namespace samepage::imagestore
