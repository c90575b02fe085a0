#include "fingerprinter/guest_kernel.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "fingerprinter/kernel_layout.h"
#include "fingerprinter/kernel_memory.h"
#include "fingerprinter/kernel_names.h"
#include "fingerprinter/kernel_types.h"
#include "fingerprinter/vmcoreinfo.h"

namespace samepage::fingerprinter {
namespace {

// Of x86-64 (Documentation/x86/x86_64/mm.rst). All else of the kernel's half moves with KASLR.
constexpr std::uint64_t kImageMap = 0xffff'ffff'8000'0000;
constexpr std::uint64_t kImageBytesUsual = 512U << 20U;
constexpr std::uint64_t kModulesEnd = 0xffff'ffff'ff00'0000;
constexpr std::uint64_t kStackBytes = 16U << 10U;
constexpr std::uint64_t kLowFrames = 256;  // Below 1 MiB, where the firmware's data is.

constexpr std::size_t kImageBytesMax = 128U << 20U;
constexpr std::uint32_t kLogBitsMax = 27;
constexpr std::int64_t kSectionBitsMin = 24;
constexpr std::int64_t kSectionBitsMax = 40;
constexpr std::uint64_t kSectionHasMap = 2;
constexpr std::uint64_t kSectionFlags = 0x3f;
constexpr std::size_t kPageStructMax = 256;

// Of struct page.
constexpr std::uint32_t kTypeBase = 0xf000'0000;
constexpr std::uint64_t kMappingFlags = 3;
constexpr std::uint64_t kMappingAnonymous = 1;
constexpr std::uint64_t kMappingMovable = 2;

/// Of the kernel's image, whose pages the allocator never had; those that it was given since are
/// still mapped there.
bool is_of_image(PageKind kind) {
  return kind == PageKind::kKernelText || kind == PageKind::kKernelRodata ||
         kind == PageKind::kKernelData;
}

/// The kernel's BTF, which is behind its code in one piece.
std::optional<KernelLayout> find_layout(const RamImage& ram, std::size_t text, Error& why) {
  const auto image =
      ram.bytes().subspan(text).first(std::min(kImageBytesMax, ram.bytes().size() - text));
  for (std::size_t at = 0; at + KernelTypes::kHeaderBytes <= image.size(); at += 4) {
    if (image[at] != std::byte{0x9F} || !KernelTypes::looks_like(image.subspan(at))) continue;
    const auto types = KernelTypes::parse(image.subspan(at));
    if (!types) continue;
    auto layout = KernelLayout::of(*types);
    if (layout) return *layout;
    why = std::move(layout).error();
  }
  return std::nullopt;
}

}  // namespace

class GuestKernel::Reader {
 public:
  static Result<std::unique_ptr<Reader>> create(const RamImage& ram, const Vmcoreinfo& info);

  const Vmcoreinfo& info() const { return info_; }
  const std::string& release() const { return release_; }
  PageNames name_pages() const;

 private:
  /// A struct page, or the one that speaks for it when it is part of a larger page.
  struct Page {
    std::uint64_t flags = 0;
    std::uint64_t mapping = 0;
    std::uint64_t slab_cache = 0;
    std::uint32_t type = 0;
    std::uint32_t references = 0;

    bool has(std::uint32_t flag) const { return (flags >> flag & 1U) != 0; }
  };

  Reader(const RamImage& ram, const Vmcoreinfo& info, const KernelMemory& memory)
      : ram_(ram), info_(info), release_(info.text("OSRELEASE")), memory_(memory) {}

  std::uint64_t section_map(std::uint64_t frame) const;
  std::optional<Page> read_page(std::uint64_t at, bool is_head) const;
  std::optional<Page> page_of(std::uint64_t frame) const;
  bool has_type(const Page& page, std::optional<std::uint32_t> type, unsigned shift) const;

  std::vector<PageKind> map_kinds() const;
  PageKind kind_of_mapping(const KernelMemory::Mapping& mapping) const;
  void mark(std::vector<PageKind>& kinds, std::uint64_t physical, std::uint64_t bytes,
            PageKind kind) const;
  void mark_log(std::vector<PageKind>& kinds) const;
  PageNames::Use use_of(const Page& page, PageKind mapped, std::uint64_t frame,
                        KernelNames& names) const;

  const RamImage& ram_;
  const Vmcoreinfo info_;
  const std::string release_;
  const KernelMemory memory_;
  KernelLayout layout_;
  std::uint64_t section_roots_ = 0;
  std::int64_t section_bits_ = 0;
  std::uint64_t image_end_ = 0;
  std::uint64_t memory_map_ = 0;  ///< The struct page of frame 0.
  std::uint64_t memory_map_end_ = 0;
};

Result<std::unique_ptr<GuestKernel::Reader>> GuestKernel::Reader::create(const RamImage& ram,
                                                                         const Vmcoreinfo& info) {
  const auto root = info.symbol("swapper_pg_dir");
  const auto text = info.symbol("_stext");
  const auto base = info.number("phys_base");
  const auto sections = info.symbol("mem_section");
  if (!root || !text || !base || !sections) {
    return fail(Errc::kNotFound, "the guest's VMCOREINFO is not of x86-64, or is too old");
  }
  const std::uint64_t root_physical = *root - kImageMap + static_cast<std::uint64_t>(*base);
  const unsigned levels = info.number("pgtable_l5_enabled").value_or(0) != 0 ? 5 : 4;
  std::unique_ptr<Reader> reader(new Reader(ram, info, KernelMemory(ram, root_physical, levels)));
  const auto text_at = reader->memory_.offset_of(*text);
  if (!text_at) return fail(Errc::kNotFound, "the guest's page tables do not map its kernel");
  Error why(Errc::kNotFound, "the guest's kernel has no BTF (CONFIG_DEBUG_INFO_BTF)");
  const auto layout = find_layout(ram, *text_at, why);
  if (!layout) return tl::unexpected(std::move(why));
  if (layout->page.size > kPageStructMax) return fail(Errc::kNotFound, "its struct page is huge");
  reader->layout_ = *layout;
  reader->section_roots_ = *sections;
  reader->section_bits_ =
      std::clamp(info.number("SECTION_SIZE_BITS").value_or(27), kSectionBitsMin, kSectionBitsMax);
  const auto image_bytes = info.number("KERNEL_IMAGE_SIZE");
  reader->image_end_ =
      kImageMap + (image_bytes ? static_cast<std::uint64_t>(*image_bytes) : kImageBytesUsual);
  reader->memory_map_ = reader->section_map(0);
  reader->memory_map_end_ =
      reader->memory_map_ + (ram.frame_of(ram.pages() - 1) + 1) * layout->page.size;
  return reader;
}

/// What to add frame times size to for a frame's struct page; 0 when it has none. By
/// sparse_index_to of sections, as with CONFIG_SPARSEMEM_EXTREME.
std::uint64_t GuestKernel::Reader::section_map(std::uint64_t frame) const {
  const std::uint64_t section = frame * kPageSize >> static_cast<unsigned>(section_bits_);
  const std::uint64_t per_root = std::max<std::uint64_t>(kPageSize / layout_.section_size, 1);
  const auto root = memory_.u64(section_roots_ + section / per_root * sizeof(std::uint64_t));
  if (!root || *root == 0) return 0;
  const auto map =
      memory_.u64(*root + section % per_root * layout_.section_size + layout_.section_map);
  return map && (*map & kSectionHasMap) != 0 ? *map & ~kSectionFlags : 0;
}

std::optional<GuestKernel::Reader::Page> GuestKernel::Reader::read_page(std::uint64_t at,
                                                                        bool is_head) const {
  std::array<std::byte, kPageStructMax + sizeof(std::uint64_t)> bytes{};
  if (!memory_.read(at, std::span(bytes).first(layout_.page.size))) return std::nullopt;
  const auto take = [&](auto& value, std::size_t offset) {
    std::memcpy(&value, bytes.data() + std::min(offset, kPageStructMax), sizeof value);
  };
  std::uint64_t head = 0;
  take(head, layout_.page.compound_head);
  if (!is_head && (head & 1U) != 0) return read_page(head - 1, true);
  Page page;
  take(page.flags, layout_.page.flags);
  take(page.mapping, layout_.page.mapping);
  take(page.slab_cache, layout_.slab_cache);
  take(page.type, layout_.page.type);
  take(page.references, layout_.page.references);
  return page;
}

std::optional<GuestKernel::Reader::Page> GuestKernel::Reader::page_of(std::uint64_t frame) const {
  const std::uint64_t map = section_map(frame);
  if (map == 0) return std::nullopt;
  return read_page(map + frame * layout_.page.size, false);
}

/// `shift`: of the type's bit from that of free pages, until Linux 6.10.
bool GuestKernel::Reader::has_type(const Page& page, std::optional<std::uint32_t> type,
                                   unsigned shift) const {
  if (layout_.buddy_type) return type && page.type >> 24U == *type;
  const auto buddy = info_.number("PAGE_BUDDY_MAPCOUNT_VALUE");
  if (!buddy) return false;
  const std::uint32_t bit = ~static_cast<std::uint32_t>(*buddy) << shift;
  return (page.type & (kTypeBase | bit)) == kTypeBase;
}

PageKind GuestKernel::Reader::kind_of_mapping(const KernelMemory::Mapping& mapping) const {
  const bool is_code = mapping.is_executable && !mapping.is_writable;
  if (mapping.address >= kModulesEnd) return PageKind::kUnknown;
  if (mapping.address >= image_end_) {
    return is_code ? PageKind::kModuleText : PageKind::kModuleData;
  }
  if (mapping.address >= kImageMap) {
    if (is_code) return PageKind::kKernelText;
    return mapping.is_writable ? PageKind::kKernelData : PageKind::kKernelRodata;
  }
  if (mapping.address >= memory_map_ && mapping.address < memory_map_end_) {
    return PageKind::kMemoryMap;
  }
  return PageKind::kVmalloc;
}

void GuestKernel::Reader::mark(std::vector<PageKind>& kinds, std::uint64_t physical,
                               std::uint64_t bytes, PageKind kind) const {
  for (std::uint64_t done = 0; done < bytes; done += kPageSize) {
    const auto at = ram_.offset_of(physical + done);
    if (!at) return;
    kinds[*at / kPageSize] = kind;
  }
}

void GuestKernel::Reader::mark_log(std::vector<PageKind>& kinds) const {
  const auto ring = memory_.u64(info_.symbol("prb").value_or(0));
  if (!ring) return;
  const auto data = memory_.u64(*ring + layout_.log.data);
  const auto bits = memory_.u32(*ring + layout_.log.size_bits);
  if (!data || !bits || *bits > kLogBitsMax) return;
  for (std::uint64_t done = 0; done < std::uint64_t{1} << *bits; done += kPageSize) {
    const auto at = memory_.offset_of(*data + done);
    if (at) kinds[*at / kPageSize] = PageKind::kLogBuffer;
  }
}

/// What the kernel's page tables say of each page, beside that all are in the direct map: the
/// lowest of its maps.
std::vector<PageKind> GuestKernel::Reader::map_kinds() const {
  std::vector<PageKind> kinds(ram_.pages(), PageKind::kUnknown);
  std::optional<std::uint64_t> direct_map;
  std::vector<KernelMemory::Mapping> run;  // Of small pages in the vmalloc area.
  const auto end_run = [&] {
    const bool is_stack =
        run.size() == kStackBytes / kPageSize && run.front().address % kStackBytes == 0;
    const PageKind kind = is_stack ? PageKind::kKernelStack : PageKind::kVmalloc;
    for (const auto& page : run) mark(kinds, page.physical, page.bytes, kind);
    run.clear();
  };
  std::vector<std::uint64_t> tables;
  memory_.walk(
      [&](const KernelMemory::Mapping& mapping) {
        if (!direct_map) direct_map = mapping.address - mapping.physical;
        if (mapping.address - mapping.physical == *direct_map) return;
        if (!run.empty() && mapping.address != run.back().address + kPageSize) end_run();
        const PageKind kind = kind_of_mapping(mapping);
        if (kind == PageKind::kUnknown) return;
        if (kind == PageKind::kVmalloc && mapping.bytes == kPageSize) {
          run.push_back(mapping);
        } else {
          mark(kinds, mapping.physical, mapping.bytes, kind);
        }
      },
      [&](std::uint64_t table) { tables.push_back(table); });
  end_run();
  for (const std::uint64_t table : tables) mark(kinds, table, kPageSize, PageKind::kPageTable);
  mark_log(kinds);
  return kinds;
}

PageNames::Use GuestKernel::Reader::use_of(const Page& page, PageKind mapped, std::uint64_t frame,
                                           KernelNames& names) const {
  if (mapped == PageKind::kLogBuffer) return {.kind = mapped};
  if (page.has(layout_.flag.reserved)) {
    if (frame < kLowFrames) return {.kind = PageKind::kFirmware};
    const bool is_known =
        is_of_image(mapped) || mapped == PageKind::kMemoryMap || mapped == PageKind::kPageTable;
    return {.kind = is_known ? mapped : PageKind::kBootMemory};
  }
  const bool is_slab = layout_.slab_type ? has_type(page, layout_.slab_type, 0)
                                         : layout_.flag.slab && page.has(*layout_.flag.slab);
  if (is_slab) return {.kind = PageKind::kSlab, .word = names.slab_cache(page.slab_cache)};
  if (page.references == 0 || has_type(page, layout_.buddy_type, 0)) {
    return {.kind = PageKind::kFree};
  }
  if (has_type(page, layout_.table_type, 2)) return {.kind = PageKind::kPageTable};
  const std::uint64_t mapping = page.mapping & ~kMappingFlags;
  if (mapping == 0 || (page.mapping & kMappingFlags) == kMappingMovable) {
    const bool is_known = mapped != PageKind::kUnknown && !is_of_image(mapped);
    return {.kind = is_known ? mapped : PageKind::kOtherKernel};
  }
  if ((page.mapping & kMappingAnonymous) != 0) {
    return {.kind = PageKind::kProcess, .word = names.process(mapping)};
  }
  const bool is_shared = page.has(layout_.flag.swap_backed);
  return {.kind = is_shared ? PageKind::kSharedMemory : PageKind::kPageCache,
          .word = names.file(mapping)};
}

PageNames GuestKernel::Reader::name_pages() const {
  PageNames named;
  KernelNames names(memory_, layout_, named);
  const std::vector<PageKind> mapped = map_kinds();
  named.uses.resize(ram_.pages());
  for (std::size_t i = 0; i < ram_.pages(); ++i) {
    const std::uint64_t frame = ram_.frame_of(i);
    const auto page = page_of(frame);
    if (page) {
      named.uses[i] = use_of(*page, mapped[i], frame, names);
    } else if (frame < kLowFrames) {
      named.uses[i].kind = PageKind::kFirmware;
    }
  }
  return named;
}

GuestKernel::GuestKernel(std::unique_ptr<Reader> reader) : reader_(std::move(reader)) {}
GuestKernel::GuestKernel(GuestKernel&& other) noexcept = default;
GuestKernel& GuestKernel::operator=(GuestKernel&& other) noexcept = default;
GuestKernel::~GuestKernel() = default;

Result<GuestKernel> GuestKernel::find(const RamImage& ram) {
  Error why(Errc::kNotFound, "no kernel with VMCOREINFO is in the guest's RAM (yet)");
  for (const Vmcoreinfo& info : Vmcoreinfo::find(ram)) {
    auto reader = Reader::create(ram, info);
    if (reader) return GuestKernel(std::move(*reader));
    why = std::move(reader).error();
  }
  return tl::unexpected(std::move(why));
}

const std::string& GuestKernel::release() const {
  return reader_->release();
}

std::uint64_t GuestKernel::offset() const {
  return reader_->info().kernel_offset();
}

PageNames GuestKernel::name_pages() const {
  return reader_->name_pages();
}

}  // namespace samepage::fingerprinter
