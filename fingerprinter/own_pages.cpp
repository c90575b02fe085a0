#include "fingerprinter/own_pages.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/page.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"

namespace samepage::fingerprinter {
namespace {

/// As /proc/PID/maps writes it.
std::string device_text(dev_t device) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "%02x:%02x", major(device), minor(device));
  return text.data();
}

bool maps_whole_file(const RamBlock& ram, const struct stat& file) {
  return !ram.first.shared && ram.first.offset == 0 && ram.first.inode == file.st_ino &&
         ram.first.device == device_text(file.st_dev) &&
         ram.bytes == static_cast<std::uint64_t>(file.st_size);
}

}  // namespace

Result<std::vector<bool>> own_pages(const VmInfo& vm, const std::filesystem::path& ram_file) {
  struct stat file {};
  if (::stat(ram_file.c_str(), &file) != 0) {
    return fail(Errc::kIo, ram_file.string() + " cannot be looked at");
  }
  const GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const auto mappings = TRY(process.mappings());
  const RamBlock ram = TRY(find_ram(mappings, vm.memory_bytes));
  if (!maps_whole_file(ram, file)) {
    return fail(Errc::kInvalid, vm.name + " does not map " + ram_file.string() + " privately");
  }
  std::vector<bool> own(ram.bytes / kPageSize);
  std::array<PagemapEntry, 4096> entries;
  for (std::size_t at = 0; at < own.size();) {
    const auto some = std::span(entries).first(std::min(entries.size(), own.size() - at));
    TRY(read_pagemap(process.pagemap(), ram.address + at * kPageSize, some));
    for (const PagemapEntry& entry : some) {
      own[at++] = entry.swapped() || (entry.present() && !entry.of_file());
    }
  }
  if (!process.alive()) return tl::unexpected(process.blame("pagemap"));
  return own;
}

}  // namespace samepage::fingerprinter
