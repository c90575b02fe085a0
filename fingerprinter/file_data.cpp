#include "fingerprinter/file_data.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

#include <unistd.h>

#include "core/page.h"

namespace samepage::fingerprinter {
namespace {

off_t offset_of(std::uint64_t page) {
  return static_cast<off_t>(page * kPageSize);
}

tl::unexpected<Error> refused(const char* attempt) {
  return fail(Errc::kIo, std::string(attempt) + ": " + std::generic_category().message(errno));
}

}  // namespace

Result<std::optional<std::uint64_t>> next_data(const Fd& file, std::uint64_t page) {
  const off_t data = ::lseek(file.get(), offset_of(page), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return std::optional<std::uint64_t>();
  if (data < 0) return refused("SEEK_DATA");
  return std::optional(static_cast<std::uint64_t>(data) / kPageSize);
}

Result<std::uint64_t> next_hole(const Fd& file, std::uint64_t page) {
  const off_t hole = ::lseek(file.get(), offset_of(page), SEEK_HOLE);
  if (hole < 0) return refused("SEEK_HOLE");
  return (static_cast<std::uint64_t>(hole) + kPageSize - 1) / kPageSize;
}

Result<std::vector<PageRun>> data_runs(const Fd& file, PageRun range) {
  std::vector<PageRun> runs;
  const std::uint64_t end = range.first + range.count;
  for (std::uint64_t at = range.first; at < end;) {
    const auto first = TRY(next_data(file, at));
    if (!first || *first >= end) break;
    // A hole that was made meanwhile still leaves this behind.
    at = std::clamp(TRY(next_hole(file, *first)), *first + 1, end);
    runs.push_back({.first = *first, .count = at - *first});
  }
  return runs;
}

}  // namespace samepage::fingerprinter
