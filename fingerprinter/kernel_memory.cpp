#include "fingerprinter/kernel_memory.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

// Of an entry (Intel SDM, volume 3, chapter 4).
constexpr std::uint64_t kPresent = 1U << 0U;
constexpr std::uint64_t kWritable = 1U << 1U;
constexpr std::uint64_t kLarge = 1U << 7U;
constexpr std::uint64_t kNotExecutable = std::uint64_t{1} << 63U;
constexpr std::uint64_t kAddressMask = 0x000f'ffff'ffff'f000;

constexpr unsigned kLevelsMax = 5;
constexpr std::uint64_t kEntries = 512;
constexpr std::uint64_t kKernelHalf = kEntries / 2;
// Pages that a walk tells of: the direct map has all of RAM once, and some of it is mapped again. A
// guest could map it without end.
constexpr std::uint64_t kWalksOfRamMax = 8;
constexpr std::uint64_t kEntriesMax = 4U << 20U;

std::uint64_t bytes_of_level(unsigned level) {
  CHECK(level - 1 < kLevelsMax);
  return std::uint64_t{1} << (12 + 9 * (level - 1));
}

std::uint64_t canonical(std::uint64_t address, unsigned levels) {
  const unsigned unused = 64 - (12 + 9 * levels);
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(address << unused) >> unused);
}

bool is_leaf(std::uint64_t entry, unsigned level) {
  return level == 1 || (level <= 3 && (entry & kLarge) != 0);
}

}  // namespace

struct KernelMemory::Table {
  std::uint64_t physical = 0;
  unsigned level = 0;
  std::uint64_t address = 0;
  bool is_writable = true;
  bool is_executable = true;
};

struct KernelMemory::Walk {
  const std::function<void(const Mapping&)>& on_mapping;
  const std::function<void(std::uint64_t)>& on_table;
  std::uint64_t looks_left = 0;
};

std::optional<std::uint64_t> KernelMemory::entry(std::uint64_t table, std::uint64_t index) const {
  const auto at = ram_->offset_of(table + index * sizeof(std::uint64_t));
  if (!at) return std::nullopt;
  std::uint64_t value = 0;  // A table is a page: it does not pass the image's end.
  std::memcpy(&value, ram_->bytes().data() + *at, sizeof value);
  if ((value & kPresent) == 0) return std::nullopt;
  return value;
}

std::optional<std::size_t> KernelMemory::offset_of(std::uint64_t address) const {
  if (canonical(address, levels_) != address) return std::nullopt;
  std::uint64_t table = root_;
  for (unsigned level = levels_; level > 0; --level) {
    const std::uint64_t bytes = bytes_of_level(level);
    const auto found = entry(table, address / bytes % kEntries);
    if (!found) return std::nullopt;
    const std::uint64_t physical = *found & kAddressMask;
    if (is_leaf(*found, level)) return ram_->offset_of((physical & ~(bytes - 1)) + address % bytes);
    table = physical;
  }
  return std::nullopt;
}

bool KernelMemory::read(std::uint64_t address, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto at = offset_of(address);
    if (!at) return false;
    const std::size_t size = std::min<std::size_t>(bytes.size(), kPageSize - address % kPageSize);
    std::memcpy(bytes.data(), ram_->bytes().data() + *at, size);
    bytes = bytes.subspan(size);
    address += size;
  }
  return true;
}

std::optional<std::uint64_t> KernelMemory::u64(std::uint64_t address) const {
  std::uint64_t value = 0;
  if (!read(address, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
  return value;
}

std::optional<std::uint32_t> KernelMemory::u32(std::uint64_t address) const {
  std::uint32_t value = 0;
  if (!read(address, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
  return value;
}

std::string KernelMemory::text(std::uint64_t address, std::size_t size_max) const {
  std::string text;
  std::byte byte{};
  while (text.size() < size_max && read(address + text.size(), std::span(&byte, 1))) {
    const char character = static_cast<char>(byte);
    if (character == '\0') break;
    text += character >= ' ' && character <= '~' ? character : '?';
  }
  return text;
}

void KernelMemory::walk_table(const Table& table, Walk& walk) const {
  walk.on_table(table.physical);
  const std::uint64_t bytes = bytes_of_level(table.level);
  for (std::uint64_t i = table.level == levels_ ? kKernelHalf : 0; i < kEntries; ++i) {
    if (walk.looks_left == 0) return;
    --walk.looks_left;
    const auto found = entry(table.physical, i);
    if (!found) continue;
    const std::uint64_t address = canonical(table.address + i * bytes, levels_);
    const bool is_writable = table.is_writable && (*found & kWritable) != 0;
    const bool is_executable = table.is_executable && (*found & kNotExecutable) == 0;
    const std::uint64_t physical = *found & kAddressMask;
    if (is_leaf(*found, table.level)) {
      const std::uint64_t pages = std::min<std::uint64_t>(bytes / kPageSize, ram_->pages());
      walk.looks_left -= std::min(walk.looks_left, pages);
      walk.on_mapping({.address = address,
                       .physical = physical & ~(bytes - 1),
                       .bytes = bytes,
                       .is_writable = is_writable,
                       .is_executable = is_executable});
    } else {
      walk_table({.physical = physical,
                  .level = table.level - 1,
                  .address = address,
                  .is_writable = is_writable,
                  .is_executable = is_executable},
                 walk);
    }
  }
}

bool KernelMemory::walk(const std::function<void(const Mapping&)>& on_mapping,
                        const std::function<void(std::uint64_t)>& on_table) const {
  Walk walk{.on_mapping = on_mapping,
            .on_table = on_table,
            .looks_left = kEntriesMax + kWalksOfRamMax * ram_->pages()};
  walk_table({.physical = root_, .level = levels_}, walk);
  return walk.looks_left > 0;
}

}  // namespace samepage::fingerprinter
