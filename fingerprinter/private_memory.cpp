#include "fingerprinter/private_memory.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <sys/uio.h>

#include "core/check.h"
#include "core/page.h"
#include "fingerprinter/pagemap.h"
#include "fingerprinter/read_fully.h"

// Two ways to read, and when
//
// process_vm_readv copies once; /proc/PID/mem copies twice, through a page of the kernel's own. But
// process_vm_readv pins the pages that it copies, and since Linux 5.19 the kernel *unshares* a page
// that is not the process's own before it pins it: one scan would undo everything that KSM has
// merged in the guest. A read of /proc/PID/mem only takes a reference. So pages that pagemap calls
// exclusively mapped are read with process_vm_readv, a batch in one call, and the others through
// /proc/PID/mem.

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kSpanMax = GuestMemory::kRunsSpanMax;

/// Consecutive pages in one state, and where their copy goes.
struct Part {
  PagemapEntry entry;
  std::uint64_t page = 0;
  std::span<std::byte> destination;
};

bool same_state(const PagemapEntry& a, const PagemapEntry& b) {
  return a.present() == b.present() && a.swapped() == b.swapped() && a.exclusive() == b.exclusive();
}

class PrivateMemory final : public GuestMemory {
 public:
  PrivateMemory(GuestProcess process, const RamBlock& ram, Fd memory, Fd file)
      : process_(std::move(process)),
        ram_(ram),
        memory_(std::move(memory)),
        file_(std::move(file)) {}

  std::uint64_t pages() const override { return ram_.bytes / kPageSize; }

  Result<std::vector<PageRun>> populated() override { return populated_within({0, pages()}); }

  Result<std::vector<PageRun>> populated_within(PageRun range) override {
    const std::uint64_t address = ram_.address + range.first * kPageSize;
    auto runs = scan_present(process_.pagemap(), address, range.count);
    if (!runs && runs.error().code() == Errc::kInvalid) {
      runs = read_present(process_.pagemap(), address, range.count);
    }
    // The memory of a process that has ended looks all untouched.
    if (!process_.alive()) return failed("populated");
    if (!runs) return runs;
    for (PageRun& run : *runs) run.first += range.first;
    return runs;
  }

  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    CHECK(destination.size() % kPageSize == 0);
    while (!destination.empty()) {
      const std::size_t bytes = std::min(destination.size(), kSpanMax * kPageSize);
      const PageRun run{first, bytes / kPageSize};
      TRY(read_runs({&run, 1}, destination.first(bytes)));
      destination = destination.subspan(bytes);
      first += run.count;
    }
    return {};
  }

  Result<void> read_runs(std::span<const PageRun> runs, std::span<std::byte> destination) override {
    if (runs.empty()) return {};
    const std::uint64_t begin = runs.front().first;
    const std::uint64_t span = runs.back().first + runs.back().count - begin;
    CHECK(span <= kSpanMax);
    std::array<PagemapEntry, kSpanMax> buffer;
    const auto entries = std::span(buffer).first(span);
    TRY(read_pagemap(process_.pagemap(), ram_.address + begin * kPageSize, entries));

    std::vector<Part> parts;
    for (const PageRun& run : runs) {
      cut(run, entries.subspan(run.first - begin, run.count), destination, parts);
      destination = destination.subspan(run.count * kPageSize);
    }
    const auto done = read_parts(parts);
    if (!done) return failed(done.error().message());
    if (!process_.alive()) return failed("read");
    return {};
  }

  Result<void> shared_frames(std::uint64_t first, std::span<std::uint64_t> frames) override {
    while (!frames.empty()) {
      std::array<PagemapEntry, kSpanMax> buffer;
      const auto entries = std::span(buffer).first(std::min<std::size_t>(frames.size(), kSpanMax));
      TRY(read_pagemap(process_.pagemap(), ram_.address + first * kPageSize, entries));
      std::ranges::transform(entries, frames.begin(), [](const PagemapEntry& entry) {
        return entry.exclusive() ? 0 : entry.frame();
      });
      frames = frames.subspan(entries.size());
      first += entries.size();
    }
    if (!process_.alive()) return failed("frames");
    return {};
  }

 private:
  static void cut(PageRun run, std::span<const PagemapEntry> entries,
                  std::span<std::byte> destination, std::vector<Part>& parts) {
    for (std::size_t i = 0; i < entries.size();) {
      std::size_t count = 1;
      while (i + count < entries.size() && same_state(entries[i], entries[i + count])) ++count;
      parts.push_back(
          {entries[i], run.first + i, destination.subspan(i * kPageSize, count * kPageSize)});
      i += count;
    }
  }

  Result<void> read_parts(std::span<const Part> parts) const {
    std::vector<iovec> here;
    std::vector<iovec> there;
    std::size_t bytes = 0;
    for (const Part& part : parts) {
      const std::uint64_t address = ram_.address + part.page * kPageSize;
      if (!part.entry.present()) {
        TRY(read_absent(part));
      } else if (!part.entry.exclusive()) {
        TRY(read_fully(memory_, address, part.destination));
      } else {
        here.push_back({part.destination.data(), part.destination.size()});
        // An address of the other process; nothing here follows it.
        there.push_back({reinterpret_cast<void*>(address),  // NOLINT(performance-no-int-to-ptr)
                         part.destination.size()});
        bytes += part.destination.size();
      }
    }
    if (bytes == 0) return {};
    static_assert(kSpanMax <= 1024, "more parts than one call takes");
    const ssize_t got =
        ::process_vm_readv(process_.pid(), here.data(), here.size(), there.data(), there.size(), 0);
    if (got < 0) return fail(Errc::kIo, "reading RAM: " + std::generic_category().message(errno));
    if (std::cmp_not_equal(got, bytes)) return fail(Errc::kIo, "a page could not be read");
    return {};
  }

  Result<void> read_absent(const Part& part) const {
    if (part.entry.swapped()) return fail(Errc::kIo, "a page is swapped out");
    if (file_) {
      return read_fully(file_, ram_.first.offset + part.page * kPageSize, part.destination);
    }
    std::memset(part.destination.data(), 0, part.destination.size());
    return {};
  }

  tl::unexpected<Error> failed(const std::string& message) const {
    return tl::unexpected(process_.blame(message));
  }

  const GuestProcess process_;
  const RamBlock ram_;
  const Fd memory_;
  const Fd file_;  // Empty for anonymous memory.
};

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_private_memory(GuestProcess process, const RamBlock& ram,
                                                         Fd file) {
  Fd memory = TRY(process.open_memory());
  return std::make_unique<PrivateMemory>(std::move(process), ram, std::move(memory),
                                         std::move(file));
}

}  // namespace samepage::fingerprinter
