// The promise under test: of a sparse file exactly the pages are found that hold data, and looking
// makes no others.
#include "fingerprinter/file_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/page.h"

namespace samepage::fingerprinter {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kPages = 100;

Fd file_with(std::initializer_list<PageRun> runs) {
  Fd file(::memfd_create("ram", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), kPages * kPageSize), 0);
  for (const PageRun& run : runs) {
    const std::vector<char> data(run.count * kPageSize, 'x');
    EXPECT_EQ(
        ::pwrite(file.get(), data.data(), data.size(), static_cast<off_t>(run.first * kPageSize)),
        static_cast<ssize_t>(data.size()));
  }
  return file;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> found(const Fd& file, PageRun range) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
  const auto runs = data_runs(file, range).value();
  for (const PageRun& run : runs) found.emplace_back(run.first, run.count);
  return found;
}

TEST(FileDataTest, FindsTheRunsWithinARange) {
  const Fd file = file_with({{0, 3}, {10, 5}, {97, 3}});

  EXPECT_THAT(found(file, {0, kPages}),
              ElementsAre(std::pair(0, 3), std::pair(10, 5), std::pair(97, 3)));
  EXPECT_THAT(found(file, {1, 11}), ElementsAre(std::pair(1, 2), std::pair(10, 2)));
  EXPECT_THAT(found(file, {20, 50}), IsEmpty());
  EXPECT_THAT(found(file, {99, 50}), ElementsAre(std::pair(99, 1))) << "beyond the end is nothing";

  struct stat after {};
  ASSERT_EQ(::fstat(file.get(), &after), 0);
  EXPECT_EQ(after.st_blocks * 512, 11 * static_cast<std::int64_t>(kPageSize));
}

TEST(FileDataTest, SaysWhereDataAndHolesBegin) {
  const Fd file = file_with({{10, 5}});

  EXPECT_EQ(next_data(file, 0).value(), 10U);
  EXPECT_EQ(next_data(file, 12).value(), 12U);
  EXPECT_EQ(next_data(file, 15).value(), std::nullopt);
  EXPECT_EQ(next_hole(file, 10).value(), 15U);
}

TEST(FileDataTest, WhatIsNoFileIsAnIoError) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);

  EXPECT_EQ(next_data(reader, 0).error().code(), Errc::kIo);
  EXPECT_EQ(next_hole(reader, 0).error().code(), Errc::kIo);
  EXPECT_EQ(data_runs(reader, {0, 1}).error().code(), Errc::kIo);
}

}  // namespace
}  // namespace samepage::fingerprinter
