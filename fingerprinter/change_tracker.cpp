#include "fingerprinter/change_tracker.h"

#include <algorithm>
#include <array>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "core/page.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"
#include "fingerprinter/userfault.h"

namespace samepage::fingerprinter {
namespace {

/// A guest's process and where its RAM is.
struct Guest {
  GuestProcess process;
  RamBlock ram;

  std::uint64_t pages() const { return ram.bytes / kPageSize; }
};

Result<Guest> open_guest(const VmInfo& vm) {
  GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const std::vector<Mapping> mappings = TRY(process.mappings());
  const RamBlock ram = TRY(find_ram(mappings, vm.memory_bytes));
  return Guest{std::move(process), ram};
}

class WrittenPages final : public ChangeTracker {
 public:
  WrittenPages(Guest guest, Fd userfault)
      : guest_(std::move(guest)), userfault_(std::move(userfault)) {}
  ~WrittenPages() override {
    if (guest_.process.alive()) unwatch(userfault_, guest_.ram.address, guest_.ram.bytes);
  }
  WrittenPages(const WrittenPages&) = delete;
  WrittenPages& operator=(const WrittenPages&) = delete;

  std::string_view name() const override { return "written-pages"; }
  bool is_exact() const override { return true; }

  Result<std::vector<PageRun>> changed() override {
    auto runs = take_written(guest_.process.pagemap(), guest_.ram.address, guest_.pages());
    if (!guest_.process.alive()) return tl::unexpected(guest_.process.blame("changed pages"));
    return runs;
  }

 private:
  Guest guest_;
  Fd userfault_;
};

class SoftDirty final : public ChangeTracker {
 public:
  explicit SoftDirty(Guest guest) : guest_(std::move(guest)) {}

  std::string_view name() const override { return "soft-dirty"; }
  bool is_exact() const override { return false; }

  Result<std::vector<PageRun>> changed() override {
    std::vector<PageRun> runs;
    std::vector<PagemapEntry> entries;
    for (std::uint64_t first = 0; first < guest_.pages(); first += entries.size()) {
      entries.resize(std::min(kEntriesBatch, guest_.pages() - first));
      TRY(read_pagemap(guest_.process.pagemap(), guest_.ram.address + first * kPageSize, entries));
      for (std::size_t i = 0; i < entries.size(); ++i) {
        if (!entries[i].soft_dirty()) continue;
        if (!runs.empty() && runs.back().first + runs.back().count == first + i) {
          ++runs.back().count;
        } else {
          runs.push_back({first + i, 1});
        }
      }
    }
    TRY(guest_.process.clear_soft_dirty());
    if (!std::exchange(begun_, true)) return std::vector<PageRun>{{0, guest_.pages()}};
    return runs;
  }

 private:
  static constexpr std::uint64_t kEntriesBatch = 32'768;
  Guest guest_;
  bool begun_ = false;
};

/// Cuts [first, first + count) into the pages whose number, counted in blocks, has its turn.
class Rotation final : public ChangeTracker {
 public:
  explicit Rotation(GuestMemory& memory) : memory_(memory) {}

  std::string_view name() const override { return "rotation"; }
  bool is_exact() const override { return false; }

  Result<std::vector<PageRun>> changed() override {
    std::vector<PageRun> now = TRY(memory_.populated());
    std::vector<PageRun> runs;
    if (!std::exchange(begun_, true)) {
      runs.push_back({0, memory_.pages()});
    } else {
      const std::vector<bool> held = held_pages(now);
      for (std::uint64_t page = 0; page < memory_.pages(); ++page) {
        const bool turn = page / kBlock % kRotationCalls == turn_;
        if (held[page] != held_[page] || (turn && held[page])) append(runs, page);
      }
      turn_ = (turn_ + 1) % kRotationCalls;
    }
    held_ = held_pages(now);
    return runs;
  }

 private:
  // As many pages as are read at once.
  static constexpr std::uint64_t kBlock = 256;

  std::vector<bool> held_pages(const std::vector<PageRun>& runs) const {
    std::vector<bool> held(memory_.pages());
    for (const PageRun& run : runs) {
      const auto first = held.begin() + static_cast<std::ptrdiff_t>(run.first);
      std::fill(first, first + static_cast<std::ptrdiff_t>(run.count), true);
    }
    return held;
  }
  static void append(std::vector<PageRun>& runs, std::uint64_t page) {
    if (!runs.empty() && runs.back().first + runs.back().count == page) {
      ++runs.back().count;
    } else {
      runs.push_back({page, 1});
    }
  }

  GuestMemory& memory_;
  std::vector<bool> held_;
  std::uint64_t turn_ = 0;
  bool begun_ = false;
};

}  // namespace

Result<std::unique_ptr<ChangeTracker>> track_written_pages(const VmInfo& vm) {
  Guest guest = TRY(open_guest(vm));
  Fd userfault = TRY(take_userfault(guest.process));
  TRY(note_writes(userfault));
  TRY(watch(userfault, guest.ram.address, guest.ram.bytes));
  return std::make_unique<WrittenPages>(std::move(guest), std::move(userfault));
}

Result<std::unique_ptr<ChangeTracker>> track_soft_dirty(const VmInfo& vm) {
  if (!kernel_tracks_soft_dirty()) {
    return fail(Errc::kInvalid, "this kernel has no soft-dirty pages (CONFIG_MEM_SOFT_DIRTY)");
  }
  return std::make_unique<SoftDirty>(TRY(open_guest(vm)));
}

Result<std::unique_ptr<ChangeTracker>> track_by_rotation(GuestMemory& memory) {
  return std::make_unique<Rotation>(memory);
}

Result<std::unique_ptr<ChangeTracker>> track_changes(const VmInfo& vm, GuestMemory& memory) {
  auto written = track_written_pages(vm);
  if (written || written.error().code() == Errc::kNotFound) return written;
  auto soft_dirty = track_soft_dirty(vm);
  if (soft_dirty || soft_dirty.error().code() == Errc::kNotFound) return soft_dirty;
  return track_by_rotation(memory);
}

bool kernel_tracks_written_pages() {
  const auto userfault = make_userfault();
  return userfault && note_writes(*userfault);
}

bool kernel_tracks_soft_dirty() {
  // A page that has just been written is soft-dirty wherever that is kept at all.
  const auto self = GuestProcess::open(::getpid());
  void* const page =
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!self || page == MAP_FAILED) return false;
  *static_cast<volatile char*>(page) = 1;
  std::array<PagemapEntry, 1> entry;
  const bool read = static_cast<bool>(
      read_pagemap(self->pagemap(), reinterpret_cast<std::uintptr_t>(page), entry));
  ::munmap(page, kPageSize);
  return read && entry[0].soft_dirty();
}

}  // namespace samepage::fingerprinter
