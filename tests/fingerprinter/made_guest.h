#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "fingerprinter/ram_image.h"

namespace samepage::fingerprinter {

/// Writes BTF: types are numbered from 1 in the order in which they are added.
class BtfWriter {
 public:
  struct Member {
    std::string name;
    std::uint32_t type = 0;
    std::uint32_t byte = 0;
  };

  std::uint32_t integer(const std::string& name, std::uint32_t size);
  std::uint32_t structure(const std::string& name, std::uint32_t size,
                          const std::vector<Member>& members);
  std::uint32_t one_of(const std::vector<Member>& members);  // A union without a name.
  std::uint32_t alias(const std::string& name, std::uint32_t type);
  std::uint32_t enumeration(const std::string& name,
                            const std::vector<std::pair<std::string, std::uint32_t>>& values);

  std::vector<std::byte> bytes() const;

 private:
  std::uint32_t text(const std::string& text);
  std::uint32_t add(std::initializer_list<std::uint32_t> words);

  std::vector<std::uint32_t> types_;
  std::string strings_ = std::string(1, '\0');
  std::uint32_t count_ = 0;
};

/// 2 MiB of RAM with a kernel in it as GuestKernel looks for one: VMCOREINFO, page tables, BTF, a
/// memory map, and a page of every kind.
class MadeGuest {
 public:
  static constexpr std::size_t kPages = 512;
  static constexpr std::size_t kFirst = 256;  // The frames before are the firmware's.

  enum Frame : std::size_t {
    kInfo = kFirst,
    kRoot,
    kTables,  // Twelve, of four areas.
    kMemoryMap = kTables + 12,
    kText = kMemoryMap + 8,
    kRodata,
    kData = kRodata + 2,
    kObjects,
    kLog,
    kStack,  // Four.
    kVmalloc = kStack + 4,
    kSlab,
    kSlabTail,
    kFreePage,
    kProcessTable,
    kFile,
    kDevice,
    kShared,
    kAnonymous,
    kOther,
    kEnd,
  };

  /// With KASLR having moved the kernel by `offset`.
  explicit MadeGuest(std::uint64_t offset = 0);

  RamImage image() const { return RamImage(bytes_); }
  std::vector<std::byte>& bytes() { return bytes_; }
  void put(std::size_t frame, std::size_t at, std::uint64_t value);

 private:
  void put_text(std::size_t frame, std::size_t at, const std::string& text);
  void put_tables(std::uint64_t offset);
  void put_kernel(std::uint64_t offset);
  void put_objects();
  void put_pages();
  void put_page(std::size_t frame, std::uint64_t flags, std::uint64_t mapping,
                std::uint32_t references);

  std::vector<std::byte> bytes_;
};

}  // namespace samepage::fingerprinter
