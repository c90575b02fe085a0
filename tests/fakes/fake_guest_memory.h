#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "core/page.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fakes {

/// A guest's RAM held in a map; a page that is not in it was never touched. Scripted: `unreadable`
/// pages fail with kIo, `reads_left` counts down to the guest's end, `on_read` runs before a read.
class FakeGuestMemory final : public fingerprinter::GuestMemory {
 public:
  using Page = std::array<std::byte, kPageSize>;

  explicit FakeGuestMemory(std::uint64_t pages) : pages_(pages) {}

  /// A page whose bytes follow from `content`; 0 is the zero page.
  static Page page_of(std::uint64_t content) {
    Page page{};
    for (std::size_t at = 0; at < kPageSize; at += sizeof(content)) {
      std::memcpy(&page[at], &content, sizeof(content));
    }
    return page;
  }

  void put(std::uint64_t page, std::uint64_t content) { held[page] = page_of(content); }

  std::uint64_t pages() const override { return pages_; }

  Result<std::vector<fingerprinter::PageRun>> populated() override {
    if (reads_left == 0) return fail(Errc::kNotFound, "the guest has ended");
    std::vector<fingerprinter::PageRun> runs;
    for (const auto& [page, bytes] : held) {
      if (!runs.empty() && runs.back().first + runs.back().count == page) {
        ++runs.back().count;
      } else {
        runs.push_back({page, 1});
      }
    }
    return runs;
  }

  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    if (reads_left == 0) return fail(Errc::kNotFound, "the guest has ended");
    --reads_left;
    if (on_read) on_read();
    for (std::uint64_t page = first; !destination.empty(); ++page) {
      if (unreadable.contains(page)) return fail(Errc::kIo, "a page could not be read");
      const auto found = held.find(page);
      const Page bytes = found == held.end() ? Page{} : found->second;
      std::ranges::copy(bytes, destination.begin());
      destination = destination.subspan(kPageSize);
    }
    return {};
  }

  std::map<std::uint64_t, Page> held;
  std::set<std::uint64_t> unreadable;
  std::uint64_t reads_left = UINT64_MAX;
  std::function<void()> on_read;

 private:
  std::uint64_t pages_;
};

}  // namespace samepage::fakes
