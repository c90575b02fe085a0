#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "fingerprinter/ram_image.h"

namespace samepage::fingerprinter {

/// A guest's memory as its x86-64 kernel addresses it: through the kernel's own page tables, in the
/// guest's RAM. A guest may write into them what it likes: what is not in its RAM is none.
///
/// Threads: immutable. Lifetime: borrows the image.
class KernelMemory {
 public:
  /// `root` is the guest-physical address of the uppermost table, of which there are 4 levels or 5.
  KernelMemory(const RamImage& ram, std::uint64_t root, unsigned levels)
      : ram_(&ram), root_(root & ~std::uint64_t{kPageSize - 1}), levels_(levels) {}

  /// Where in RAM the byte of an address is.
  std::optional<std::size_t> offset_of(std::uint64_t address) const;

  /// False: some of it is not in RAM; `bytes` holds garbage then.
  bool read(std::uint64_t address, std::span<std::byte> bytes) const;

  std::optional<std::uint64_t> u64(std::uint64_t address) const;
  std::optional<std::uint32_t> u32(std::uint64_t address) const;

  /// Up to `size_max` characters, to the first NUL; what is no printable ASCII is '?'.
  std::string text(std::uint64_t address, std::size_t size_max) const;

  /// One entry of the tables that maps memory, of 4 KiB to 1 GiB.
  struct Mapping {
    std::uint64_t address = 0;
    std::uint64_t physical = 0;
    std::uint64_t bytes = 0;
    bool is_writable = false;
    bool is_executable = false;
  };
  /// All that the tables map in the kernel's half, addresses rising, and the physical addresses of
  /// the tables. False: there was more than RAM can hold, and not all of it was told.
  bool walk(const std::function<void(const Mapping&)>& on_mapping,
            const std::function<void(std::uint64_t)>& on_table) const;

 private:
  struct Walk;
  struct Table;

  std::optional<std::uint64_t> entry(std::uint64_t table, std::uint64_t index) const;
  void walk_table(const Table& table, Walk& walk) const;

  const RamImage* ram_;
  std::uint64_t root_;
  unsigned levels_;
};

}  // namespace samepage::fingerprinter
