#include "pagecache/guest_page_source.h"

#include <utility>
#include <vector>

namespace samepage::pagecache {
namespace {

using fingerprinter::GuestMemory;
using fingerprinter::PageRun;

/// The runs at the front of `pages` that one read takes; `taken` is how many pages they hold.
std::vector<PageRun> front_runs(std::span<const std::uint64_t> pages, std::size_t& taken) {
  std::vector<PageRun> runs;
  taken = 0;
  for (const std::uint64_t page : pages) {
    if (page - pages.front() >= GuestMemory::kRunsSpanMax) break;
    const bool next = !runs.empty() && page == runs.back().first + runs.back().count;
    if (next) {
      ++runs.back().count;
    } else {
      runs.push_back({.first = page, .count = 1});
    }
    ++taken;
  }
  return runs;
}

}  // namespace

GuestPageSource::GuestPageSource(std::shared_ptr<fingerprinter::GuestMemory> memory,
                                 std::string vm_name)
    : memory_(std::move(memory)), vm_name_(std::move(vm_name)) {}

Result<void> GuestPageSource::read(std::uint64_t page, PageBuffer destination) {
  if (page >= memory_->pages()) return fail(Errc::kNotFound, name() + " has no such page");
  return memory_->read(page, destination);
}

Result<void> GuestPageSource::read_many(std::span<const std::uint64_t> pages,
                                        std::span<std::byte> destination) {
  if (!pages.empty() && pages.back() >= memory_->pages()) {
    return fail(Errc::kNotFound, name() + " has no such page");
  }
  while (!pages.empty()) {
    std::size_t taken = 0;
    const auto runs = front_runs(pages, taken);
    TRY(memory_->read_runs(runs, destination.first(taken * kPageSize)));
    pages = pages.subspan(taken);
    destination = destination.subspan(taken * kPageSize);
  }
  return {};
}

}  // namespace samepage::pagecache
