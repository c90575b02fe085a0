#include "fingerprinter/guest_memory.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <sys/uio.h>
#include <unistd.h>

#include "core/check.h"
#include "core/page.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"

// Both readers copy. A map of the RAM file would save the copy, but a map that reads a hole
// allocates a page in the guest's file, and one that reads behind a shrunk file ends this process
// with SIGBUS; pread() does neither and is as fast as process_vm_readv.

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kBatchPages = 256;  // 1 MiB: the fastest size for process_vm_readv.

std::string reason(int number) {
  return std::generic_category().message(number);
}

Result<void> read_file(const Fd& file, std::uint64_t offset, std::span<std::byte> destination) {
  while (!destination.empty()) {
    const ssize_t got =
        ::pread(file.get(), destination.data(), destination.size(), static_cast<off_t>(offset));
    if (got < 0) return fail(Errc::kIo, "the RAM file: " + reason(errno));
    if (got == 0) return fail(Errc::kIo, "the RAM file ends too early");
    destination = destination.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

/// RAM that several mappings may share: the file has all its pages, whoever touched them.
class SharedMemory final : public GuestMemory {
 public:
  SharedMemory(GuestProcess process, const RamBlock& ram, Fd file)
      : process_(std::move(process)),
        pages_(ram.bytes / kPageSize),
        offset_(ram.first.offset),
        file_(std::move(file)) {}

  std::uint64_t pages() const override { return pages_; }

  Result<std::vector<PageRun>> populated() override {
    std::vector<PageRun> runs;
    const auto end = static_cast<off_t>(offset_ + pages_ * kPageSize);
    for (auto at = static_cast<off_t>(offset_); at < end;) {
      const off_t data = ::lseek(file_.get(), at, SEEK_DATA);
      if (data < 0 && errno != ENXIO) return failed("SEEK_DATA: " + reason(errno));
      if (data < 0 || data >= end) break;
      const off_t hole = ::lseek(file_.get(), data, SEEK_HOLE);
      if (hole < 0) return failed("SEEK_HOLE: " + reason(errno));
      const std::uint64_t first = page_of(data);
      at = std::min(hole, end);
      runs.push_back({first, page_of(at + off_t{kPageSize} - 1) - first});
    }
    if (!process_.alive()) return failed("populated");
    return runs;
  }

  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    const auto done = read_file(file_, offset_ + first * kPageSize, destination);
    if (!done) return failed(done.error().message());
    if (!process_.alive()) return failed("read");
    return {};
  }

 private:
  std::uint64_t page_of(off_t at) const {
    return (static_cast<std::uint64_t>(at) - offset_) / kPageSize;
  }
  tl::unexpected<Error> failed(const std::string& message) const {
    return tl::unexpected(process_.blame(message));
  }

  const GuestProcess process_;
  const std::uint64_t pages_;
  const std::uint64_t offset_;
  const Fd file_;
};

/// RAM that belongs to the process alone. Absent pages must not be touched there; they are zero,
/// or still the RAM file's when the block is a private mapping of one (a fork of a template).
class PrivateMemory final : public GuestMemory {
 public:
  PrivateMemory(GuestProcess process, const RamBlock& ram, Fd file)
      : process_(std::move(process)), ram_(ram), file_(std::move(file)) {}

  std::uint64_t pages() const override { return ram_.bytes / kPageSize; }

  Result<std::vector<PageRun>> populated() override {
    auto runs = scan_present(process_.pagemap(), ram_.address, pages());
    if (!runs && runs.error().code() == Errc::kInvalid) {
      runs = read_present(process_.pagemap(), ram_.address, pages());
    }
    // The memory of a process that has ended looks all untouched.
    if (!process_.alive()) return failed("populated");
    return runs;
  }

  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    CHECK(destination.size() % kPageSize == 0);
    while (!destination.empty()) {
      const std::size_t bytes = std::min(destination.size(), kBatchPages * kPageSize);
      TRY(read_batch(first, destination.first(bytes)));
      destination = destination.subspan(bytes);
      first += bytes / kPageSize;
    }
    return {};
  }

 private:
  Result<void> read_batch(std::uint64_t first, std::span<std::byte> destination) {
    std::array<PagemapEntry, kBatchPages> buffer;
    const auto entries = std::span(buffer).first(destination.size() / kPageSize);
    TRY(read_pagemap(process_.pagemap(), ram_.address + first * kPageSize, entries));

    std::array<iovec, kBatchPages> local;
    std::array<iovec, kBatchPages> remote;
    std::size_t present = 0;
    std::size_t present_bytes = 0;
    for (std::size_t i = 0; i < entries.size();) {
      const std::size_t count = alike(entries.subspan(i));
      const auto part = destination.subspan(i * kPageSize, count * kPageSize);
      const std::uint64_t offset = (first + i) * kPageSize;
      if (entries[i].present()) {
        local[present] = {part.data(), part.size()};
        remote[present] = {reinterpret_cast<void*>(ram_.address + offset), part.size()};
        ++present;
        present_bytes += part.size();
      } else {
        TRY(read_absent(entries[i], offset, part));
      }
      i += count;
    }
    if (present == 0) return process_.alive() ? Result<void>() : failed("read");

    const ssize_t got =
        ::process_vm_readv(process_.pid(), local.data(), present, remote.data(), present, 0);
    if (got < 0) return failed("process_vm_readv: " + reason(errno));
    if (std::cmp_not_equal(got, present_bytes)) return failed("a page could not be read");
    if (!process_.alive()) return failed("read");
    return {};
  }

  /// How many entries from the first on are in the same state as the first.
  static std::size_t alike(std::span<const PagemapEntry> entries) {
    std::size_t count = 1;
    while (count < entries.size() && entries[count].present() == entries[0].present() &&
           entries[count].swapped() == entries[0].swapped()) {
      ++count;
    }
    return count;
  }

  Result<void> read_absent(const PagemapEntry& entry, std::uint64_t offset,
                           std::span<std::byte> destination) const {
    if (entry.swapped()) return failed("a page is swapped out");
    if (file_) return read_file(file_, ram_.first.offset + offset, destination);
    std::memset(destination.data(), 0, destination.size());
    return {};
  }

  tl::unexpected<Error> failed(const std::string& message) const {
    return tl::unexpected(process_.blame(message));
  }

  const GuestProcess process_;
  const RamBlock ram_;
  const Fd file_;  // Empty for anonymous memory.
};

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_guest_memory(const VmInfo& vm) {
  GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const std::vector<Mapping> mappings = TRY(process.mappings());
  auto ram = find_ram(mappings, vm.memory_bytes);
  if (!ram) return tl::unexpected(std::move(ram).error().within("RAM of guest " + vm.name));

  Fd file;
  if (ram->file_backed()) file = TRY(process.open_file(ram->first));
  if (ram->first.shared) {
    return std::make_unique<SharedMemory>(std::move(process), *ram, std::move(file));
  }
  return std::make_unique<PrivateMemory>(std::move(process), *ram, std::move(file));
}

}  // namespace samepage::fingerprinter
