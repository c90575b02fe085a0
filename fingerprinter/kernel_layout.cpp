#include "fingerprinter/kernel_layout.h"

#include <string>
#include <string_view>

namespace samepage::fingerprinter {
namespace {

/// Takes down offsets, and the first that was missing.
class Lookup {
 public:
  explicit Lookup(const KernelTypes& types) : types_(types) {}

  std::size_t member(std::string_view structure, std::string_view name) {
    return needed(types_.offset_of(structure, name), structure, name);
  }

  std::size_t size(std::string_view structure) {
    return needed(types_.size_of(structure), structure, "");
  }

  std::uint32_t flag(std::string_view name) {
    return needed(types_.enumerator("pageflags", name), "pageflags", name) % 64;
  }

  const std::string& missing() const { return missing_; }

 private:
  template <class T>
  T needed(std::optional<T> found, std::string_view structure, std::string_view name) {
    if (!found && missing_.empty()) {
      missing_ = std::string(structure) + (name.empty() ? "" : ".") + std::string(name);
    }
    return found.value_or(T{});
  }

  const KernelTypes& types_;
  std::string missing_;
};

void look_up_names(Lookup& lookup, KernelLayout& layout) {
  layout.cache_name = lookup.member("kmem_cache", "name");
  layout.inode = {.host = lookup.member("address_space", "host"),
                  .superblock = lookup.member("inode", "i_sb"),
                  .number = lookup.member("inode", "i_ino"),
                  .device = lookup.member("inode", "i_rdev"),
                  .names = lookup.member("inode", "i_dentry")};
  layout.superblock = {.id = lookup.member("super_block", "s_id"),
                       .type = lookup.member("super_block", "s_type"),
                       .type_name = lookup.member("file_system_type", "name")};
  layout.entry = {.parent = lookup.member("dentry", "d_parent"),
                  .name = lookup.member("dentry", "d_name.name"),
                  .alias = lookup.member("dentry", "d_u")};
  layout.anonymous = {.tree = lookup.member("anon_vma", "rb_root.rb_root.rb_node"),
                      .link = lookup.member("anon_vma_chain", "rb"),
                      .area = lookup.member("anon_vma_chain", "vma"),
                      .memory = lookup.member("vm_area_struct", "vm_mm"),
                      .name = lookup.member("task_struct", "comm"),
                      .owner = {}};
  layout.log = {.data = lookup.member("printk_ringbuffer", "text_data_ring.data"),
                .size_bits = lookup.member("printk_ringbuffer", "text_data_ring.size_bits")};
}

}  // namespace

Result<KernelLayout> KernelLayout::of(const KernelTypes& types) {
  Lookup lookup(types);
  KernelLayout layout;
  layout.page = {.size = lookup.size("page"),
                 .flags = lookup.member("page", "flags"),
                 .mapping = lookup.member("page", "mapping"),
                 .type = lookup.member("page", "page_type"),
                 .references = lookup.member("page", "_refcount"),
                 .compound_head = lookup.member("page", "compound_head")};
  layout.flag = {.reserved = lookup.flag("PG_reserved"),
                 .swap_backed = lookup.flag("PG_swapbacked"),
                 .slab = types.enumerator("pageflags", "PG_slab")};
  layout.buddy_type = types.enumerator("pagetype", "PGTY_buddy");
  layout.table_type = types.enumerator("pagetype", "PGTY_table");
  layout.slab_type = types.enumerator("pagetype", "PGTY_slab");
  layout.section_size = lookup.size("mem_section");
  layout.section_map = lookup.member("mem_section", "section_mem_map");
  // struct slab lies over struct page since Linux 5.17.
  const auto slab_cache = types.offset_of("slab", "slab_cache");
  layout.slab_cache = slab_cache ? *slab_cache : lookup.member("page", "slab_cache");
  look_up_names(lookup, layout);
  layout.anonymous.owner = types.offset_of("mm_struct", "owner");
  if (!lookup.missing().empty()) {
    return fail(Errc::kNotFound, "the guest's kernel has no " + lookup.missing());
  }
  if (layout.page.size == 0 || layout.section_size == 0) {
    return fail(Errc::kNotFound, "the guest's kernel has structures of no size");
  }
  return layout;
}

}  // namespace samepage::fingerprinter
