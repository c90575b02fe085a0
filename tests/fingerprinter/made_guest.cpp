#include "tests/fingerprinter/made_guest.h"

#include <cstring>
#include <span>

#include <fmt/format.h>

#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kDirect = 0xffff'8880'0000'0000;
constexpr std::uint64_t kVmallocArea = 0xffff'c900'0000'0000;
constexpr std::uint64_t kMap = 0xffff'ea00'0000'0000;
constexpr std::uint64_t kImage = 0xffff'ffff'8100'0000;

constexpr std::uint64_t kReadOnly = 1;
constexpr std::uint64_t kReadWrite = 3;
constexpr std::uint64_t kLarge = 1U << 7U;
constexpr std::uint64_t kNoCode = std::uint64_t{1} << 63U;

constexpr std::uint64_t kPageStruct = 64;
constexpr std::uint64_t kSlabFlag = 1U << 9U;
constexpr std::uint64_t kReservedFlag = 1U << 12U;
constexpr std::uint64_t kSwapBackedFlag = 1U << 19U;

// In kData.
constexpr std::size_t kRoots = 0;
constexpr std::size_t kSections = 256;
constexpr std::size_t kRing = 512;

// In kObjects.
constexpr std::size_t kCache = 0;
constexpr std::size_t kMapping = 64;
constexpr std::size_t kInode = 128;
constexpr std::size_t kSuperblock = 192;
constexpr std::size_t kType = 256;
constexpr std::size_t kEntry = 320;
constexpr std::size_t kParent = 384;
constexpr std::size_t kRootEntry = 448;
constexpr std::size_t kTree = 512;
constexpr std::size_t kChain = 576;
constexpr std::size_t kArea = 640;
constexpr std::size_t kMemory = 704;
constexpr std::size_t kTask = 768;
constexpr std::size_t kDeviceMapping = 832;
constexpr std::size_t kDeviceInode = 896;
constexpr std::size_t kDeviceSuperblock = 960;
constexpr std::size_t kDeviceType = 1024;
constexpr std::size_t kTexts = 2048;

std::uint64_t direct(std::size_t frame, std::size_t at = 0) {
  return kDirect + frame * kPageSize + at;
}

std::uint64_t page_struct(std::size_t frame) {
  return kMap + frame * kPageStruct;
}

void add_structures(BtfWriter& types) {
  using Members = std::vector<BtfWriter::Member>;
  const auto word = types.integer("long unsigned int", 8);
  const auto half = types.integer("unsigned int", 4);
  const auto counter = types.alias("atomic_t", half);
  const auto used = types.structure("", 40, {{"mapping", word, 16}, {"index", word, 24}});
  const auto tail = types.structure("", 40, {{"compound_head", word, 0}});
  const auto either = types.one_of({{"", used, 0}, {"", tail, 0}});
  const auto type = types.one_of({{"_mapcount", counter, 0}, {"page_type", half, 0}});
  types.structure(
      "page", kPageStruct,
      {{"flags", word, 0}, {"", either, 8}, {"", type, 48}, {"_refcount", counter, 52}});
  types.structure("slab", kPageStruct, {{"slab_cache", word, 24}});
  types.structure("mem_section", 32, {{"section_mem_map", word, 0}});
  const auto tree = types.structure("rb_root", 8, {{"rb_node", word, 0}});
  const auto cached = types.structure("rb_root_cached", 16, {{"rb_root", tree, 0}});
  const auto cached_alias = types.alias("cached_t", cached);
  const auto name = types.structure("qstr", 16, {{"hash_len", word, 0}, {"name", word, 8}});
  const auto ring =
      types.structure("prb_data_ring", 16, {{"size_bits", half, 0}, {"data", word, 8}});
  const std::vector<std::pair<std::string, Members>> all = {
      {"kmem_cache", {{"name", word, 8}}},
      {"address_space", {{"host", word, 0}}},
      {"inode",
       {{"i_sb", word, 0}, {"i_ino", word, 8}, {"i_rdev", half, 16}, {"i_dentry", word, 24}}},
      {"super_block", {{"s_type", word, 0}, {"s_id", word, 8}}},
      {"file_system_type", {{"name", word, 0}}},
      {"dentry", {{"d_parent", word, 0}, {"d_name", name, 8}, {"d_u", word, 24}}},
      {"anon_vma", {{"rb_root", cached_alias, 8}}},
      {"anon_vma_chain", {{"vma", word, 0}, {"rb", word, 16}}},
      {"vm_area_struct", {{"vm_mm", word, 8}}},
      {"mm_struct", {{"owner", word, 8}}},
      {"task_struct", {{"comm", word, 8}}},
      {"printk_ringbuffer", {{"text_data_ring", ring, 8}}}};
  for (const auto& [structure, members] : all) types.structure(structure, 64, members);
  types.enumeration("pageflags",
                    {{"PG_locked", 0}, {"PG_slab", 9}, {"PG_reserved", 12}, {"PG_swapbacked", 19}});
}

}  // namespace

std::uint32_t BtfWriter::text(const std::string& text) {
  const auto at = static_cast<std::uint32_t>(strings_.size());
  strings_ += text + '\0';
  return text.empty() ? 0 : at;
}

std::uint32_t BtfWriter::add(std::initializer_list<std::uint32_t> words) {
  types_.insert(types_.end(), words);
  return ++count_;
}

std::uint32_t BtfWriter::integer(const std::string& name, std::uint32_t size) {
  return add({text(name), 1U << 24U, size, size * 8});
}

std::uint32_t BtfWriter::alias(const std::string& name, std::uint32_t type) {
  return add({text(name), 8U << 24U, type});
}

std::uint32_t BtfWriter::structure(const std::string& name, std::uint32_t size,
                                   const std::vector<Member>& members) {
  const auto count = static_cast<std::uint32_t>(members.size());
  const std::uint32_t added = add({text(name), 4U << 24U | count, size});
  for (const Member& member : members) {
    types_.insert(types_.end(), {text(member.name), member.type, member.byte * 8});
  }
  return added;
}

std::uint32_t BtfWriter::one_of(const std::vector<Member>& members) {
  const auto count = static_cast<std::uint32_t>(members.size());
  const std::uint32_t added = add({0, 5U << 24U | count, 40});
  for (const Member& member : members) {
    types_.insert(types_.end(), {text(member.name), member.type, member.byte * 8});
  }
  return added;
}

std::uint32_t BtfWriter::enumeration(
    const std::string& name, const std::vector<std::pair<std::string, std::uint32_t>>& values) {
  const auto count = static_cast<std::uint32_t>(values.size());
  const std::uint32_t added = add({text(name), 6U << 24U | count, 4});
  for (const auto& [each, value] : values) types_.insert(types_.end(), {text(each), value});
  return added;
}

std::vector<std::byte> BtfWriter::bytes() const {
  const auto size = static_cast<std::uint32_t>(types_.size() * sizeof(std::uint32_t));
  ByteWriter writer;
  for (const std::uint32_t word :
       {0x0001'eB9FU, 24U, 0U, size, size, static_cast<std::uint32_t>(strings_.size())}) {
    writer.u32(word);
  }
  for (const std::uint32_t word : types_) writer.u32(word);
  writer.raw(std::as_bytes(std::span(strings_)));
  return writer.take();
}

MadeGuest::MadeGuest(std::uint64_t offset) : bytes_(kPages * kPageSize) {
  put_tables(offset);
  put_kernel(offset);
  put_objects();
  put_pages();
}

void MadeGuest::put(std::size_t frame, std::size_t at, std::uint64_t value) {
  std::memcpy(bytes_.data() + frame * kPageSize + at, &value, sizeof value);
}

void MadeGuest::put_text(std::size_t frame, std::size_t at, const std::string& text) {
  std::memcpy(bytes_.data() + frame * kPageSize + at, text.data(), text.size());
}

void MadeGuest::put_tables(std::uint64_t offset) {
  std::size_t table = kTables;
  // The three tables below the root for an address, and where in the last its page's entry is.
  const auto area = [&](std::uint64_t address) {
    std::size_t from = kRoot;
    for (const unsigned shift : {39U, 30U, 21U}) {
      put(from, (address >> shift & 511U) * 8, table * kPageSize | kReadWrite);
      from = table++;
    }
    return from;
  };
  const auto map = [&](std::size_t last, std::uint64_t address, std::size_t frame,
                       std::uint64_t flags) {
    put(last, (address >> 12U & 511U) * 8, frame * kPageSize | flags);
  };
  const std::size_t direct_last = area(kDirect);
  put(direct_last - 1, 0, kReadWrite | kLarge | kNoCode);  // All of RAM by one entry.
  const std::size_t vmalloc = area(kVmallocArea);
  for (std::size_t i = 0; i < 4; ++i) {
    map(vmalloc, kVmallocArea + i * kPageSize, kStack + i, kReadWrite | kNoCode);
  }
  map(vmalloc, kVmallocArea + 5 * kPageSize, kVmalloc, kReadWrite | kNoCode);
  const std::size_t memory_map = area(kMap);
  for (std::size_t i = 0; i < 8; ++i) {
    map(memory_map, kMap + i * kPageSize, kMemoryMap + i, kReadWrite | kNoCode);
  }
  const std::uint64_t image = kImage + offset;
  const std::size_t last = area(image);
  map(last, image, kText, kReadOnly);
  map(last, image + kPageSize, kRodata, kReadOnly | kNoCode);
  map(last, image + 2 * kPageSize, kRodata + 1, kReadOnly | kNoCode);
  map(last, image + 3 * kPageSize, kData, kReadWrite | kNoCode);
  CHECK(table == kMemoryMap);
}

void MadeGuest::put_kernel(std::uint64_t offset) {
  const std::uint64_t image = kImage + offset;
  const std::int64_t base = static_cast<std::int64_t>(kText * kPageSize) -
                            static_cast<std::int64_t>(image - 0xffff'ffff'8000'0000);
  const std::uint64_t root =
      0xffff'ffff'8000'0000 + kRoot * kPageSize - static_cast<std::uint64_t>(base);
  put_text(kInfo, 0,
           fmt::format("OSRELEASE=6.1.0-made\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)={:x}\n"
                       "SYMBOL(_stext)={:x}\nSYMBOL(mem_section)={:x}\nSYMBOL(prb)={:x}\n"
                       "NUMBER(phys_base)={}\nNUMBER(SECTION_SIZE_BITS)=27\n"
                       "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n"
                       "NUMBER(KERNEL_IMAGE_SIZE)=1073741824\nKERNELOFFSET={:x}\n",
                       root, image, direct(kData, kRoots), direct(kData, kRing), base, offset));
  put(kText, 0, image);  // Code that says where it lies.
  BtfWriter types;
  add_structures(types);
  const auto btf = types.bytes();
  CHECK(btf.size() + 112 <= 2 * kPageSize);
  std::memcpy(bytes_.data() + kRodata * kPageSize + 112, btf.data(), btf.size());
  put(kData, kRoots, direct(kData, kSections));
  put(kData, kSections, kMap | 3U);
  put(kData, kRing, direct(kData, kRing + 8));  // The pointer, then what it points to.
  put(kData, kRing + 16, 12);
  put(kData, kRing + 24, direct(kLog));
  put_text(kLog, 0, "Linux version 6.1.0-made");
}

void MadeGuest::put_objects() {
  const auto at = [](std::size_t offset) { return direct(kObjects, offset); };
  const auto name = [&](std::size_t index, const std::string& text) {
    put_text(kObjects, kTexts + 64 * index, text);
    return at(kTexts + 64 * index);
  };
  put(kObjects, kCache + 8, name(0, "dentry"));
  put(kObjects, kMapping, at(kInode));
  put(kObjects, kInode, at(kSuperblock));
  put(kObjects, kInode + 8, 12);
  put(kObjects, kInode + 24, at(kEntry + 24));
  put(kObjects, kSuperblock, at(kType));
  put(kObjects, kType, name(1, "ext4"));
  put(kObjects, kEntry, at(kParent));
  put(kObjects, kEntry + 16, name(2, "libc.so.6"));
  put(kObjects, kParent, at(kRootEntry));
  put(kObjects, kParent + 16, name(3, "lib"));
  put(kObjects, kRootEntry, at(kRootEntry));
  put(kObjects, kTree + 8, at(kChain + 16));
  put(kObjects, kChain, at(kArea));
  put(kObjects, kArea + 8, at(kMemory));
  put(kObjects, kMemory + 8, at(kTask));
  put_text(kObjects, kTask + 8, "nginx");
  put(kObjects, kDeviceMapping, at(kDeviceInode));
  put(kObjects, kDeviceInode, at(kDeviceSuperblock));
  put(kObjects, kDeviceInode + 16, 254U << 20U | 1U);
  put(kObjects, kDeviceSuperblock, at(kDeviceType));
  put(kObjects, kDeviceType, name(4, "bdev"));
}

void MadeGuest::put_page(std::size_t frame, std::uint64_t flags, std::uint64_t mapping,
                         std::uint32_t references) {
  const std::size_t at = frame * kPageStruct;
  put(kMemoryMap, at, flags);
  put(kMemoryMap, at + 24, mapping);
  put(kMemoryMap, at + 48, std::uint64_t{references} << 32U | 0xffff'ffffU);
}

void MadeGuest::put_pages() {
  const auto object = [](std::size_t offset) { return direct(kObjects, offset); };
  for (std::size_t frame = 0; frame < kPages; ++frame) {
    const bool is_boot = frame <= kLog;
    put_page(frame, is_boot ? kReservedFlag : 0, 0, is_boot ? 1 : 0);
  }
  for (std::size_t frame = kStack; frame < kEnd; ++frame) {
    put(frame, 0, frame);
    put_page(frame, 0, 0, frame == kFreePage ? 0 : 1);
  }
  put_page(kSlab, kSlabFlag, object(kCache), 1);
  put_page(kSlabTail, 0, 0, 0);
  put(kMemoryMap, kSlabTail * kPageStruct + 8, page_struct(kSlab) | 1U);
  put(kMemoryMap, kProcessTable * kPageStruct + 48, std::uint64_t{1} << 32U | 0xffff'fdffU);
  put_page(kFile, 0, object(kMapping), 2);
  put_page(kDevice, 0, object(kDeviceMapping), 2);
  put_page(kShared, kSwapBackedFlag, object(kMapping), 2);
  put_page(kAnonymous, kSwapBackedFlag, object(kTree) | 1U, 1);
}

}  // namespace samepage::fingerprinter
