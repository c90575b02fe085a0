#include "fingerprinter/guest_memory.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <unistd.h>

#include "core/check.h"
#include "core/page.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"

// Why these two readers and no faster ones
//
// process_vm_readv pins the pages that it copies, and since Linux 5.19 the kernel *unshares* a page
// before it pins it: one scan would undo everything that KSM has merged in the guest. A read of
// /proc/PID/mem only takes a reference. It costs 15 % more than process_vm_readv on 4 KiB pages,
// and up to twice as much on huge ones.
//
// A map of a shared RAM file would save the copy. But a map that reads a hole allocates a page in
// the guest's file, and one that reads behind a shrunk file ends this process with SIGBUS; pread()
// does neither.

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kBatchPages = 256;

std::string reason(int number) {
  return std::generic_category().message(number);
}

Result<void> read_fully(const Fd& file, std::uint64_t offset, std::span<std::byte> destination) {
  while (!destination.empty()) {
    const ssize_t got =
        ::pread(file.get(), destination.data(), destination.size(), static_cast<off_t>(offset));
    if (got < 0) return fail(Errc::kIo, "reading RAM: " + reason(errno));
    if (got == 0) return fail(Errc::kIo, "the RAM ends too early");
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
    const auto done = read_fully(file_, offset_ + first * kPageSize, destination);
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
  PrivateMemory(GuestProcess process, const RamBlock& ram, Fd memory, Fd file)
      : process_(std::move(process)),
        ram_(ram),
        memory_(std::move(memory)),
        file_(std::move(file)) {}

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

    for (std::size_t i = 0; i < entries.size();) {
      const std::size_t count = alike(entries.subspan(i));
      const auto part = destination.subspan(i * kPageSize, count * kPageSize);
      const std::uint64_t offset = (first + i) * kPageSize;
      const auto done = entries[i].present() ? read_fully(memory_, ram_.address + offset, part)
                                             : read_absent(entries[i], offset, part);
      if (!done) return failed(done.error().message());
      i += count;
    }
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
    if (entry.swapped()) return fail(Errc::kIo, "a page is swapped out");
    if (file_) return read_fully(file_, ram_.first.offset + offset, destination);
    std::memset(destination.data(), 0, destination.size());
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
  Fd memory = TRY(process.open_memory());
  return std::make_unique<PrivateMemory>(std::move(process), *ram, std::move(memory),
                                         std::move(file));
}

}  // namespace samepage::fingerprinter
