#include "fingerprinter/kernel_names.h"

#include <fmt/format.h>

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kWordsMax = 100'000;
constexpr std::size_t kNameMax = 255;
constexpr std::size_t kCommandMax = 16;  // TASK_COMM_LEN
constexpr unsigned kPathDepthMax = 40;
constexpr unsigned kDeviceMinorBits = 20;

}  // namespace

std::uint32_t KernelNames::word(const std::string& text) {
  if (text.empty()) return 0;
  const auto found = by_text_.find(text);
  if (found != by_text_.end()) return found->second;
  if (names_.words.size() >= kWordsMax) return 0;
  const auto added = static_cast<std::uint32_t>(names_.words.size());
  names_.words.push_back(text);
  by_text_.emplace(text, added);
  return added;
}

template <class Describe>
std::uint32_t KernelNames::once(std::uint64_t pointer, Describe describe) {
  const auto found = by_pointer_.find(pointer);
  if (found != by_pointer_.end()) return found->second;
  const std::uint32_t named = word(describe());
  by_pointer_.emplace(pointer, named);
  return named;
}

std::uint32_t KernelNames::slab_cache(std::uint64_t cache) {
  return once(cache, [&] { return memory_.text(at(cache, layout_.cache_name), kNameMax); });
}

std::uint32_t KernelNames::file(std::uint64_t mapping) {
  return once(mapping, [&] { return describe_file(mapping); });
}

std::uint32_t KernelNames::process(std::uint64_t anonymous) {
  return once(anonymous, [&] { return describe_process(anonymous); });
}

std::string KernelNames::describe_file(std::uint64_t mapping) const {
  const std::uint64_t inode = at(mapping, layout_.inode.host);
  const std::uint64_t superblock = at(inode, layout_.inode.superblock);
  const std::uint64_t type = at(superblock, layout_.superblock.type);
  const std::string file_system = memory_.text(at(type, layout_.superblock.type_name), kNameMax);
  if (file_system.empty()) return "";
  if (file_system == "bdev") {
    const std::uint32_t device = memory_.u32(inode + layout_.inode.device).value_or(0);
    return fmt::format("block device {}:{}", device >> kDeviceMinorBits,
                       device & ((1U << kDeviceMinorBits) - 1));
  }
  const std::uint64_t alias = at(inode, layout_.inode.names);
  const std::string name = alias == 0 ? "" : path(alias - layout_.entry.alias);
  if (!name.empty()) return file_system + ":" + name;
  return fmt::format("{} inode {}", file_system, at(inode, layout_.inode.number));
}

std::string KernelNames::path(std::uint64_t entry) const {
  std::string path;
  for (unsigned depth = 0; depth < kPathDepthMax; ++depth) {
    const std::uint64_t parent = at(entry, layout_.entry.parent);
    if (parent == 0 || parent == entry) break;
    path.insert(0, "/" + memory_.text(at(entry, layout_.entry.name), kNameMax));
    entry = parent;
  }
  return path;
}

std::string KernelNames::describe_process(std::uint64_t anonymous) const {
  const std::uint64_t node = at(anonymous, layout_.anonymous.tree);
  if (node == 0 || !layout_.anonymous.owner) return "";
  const std::uint64_t area = at(node - layout_.anonymous.link, layout_.anonymous.area);
  const std::uint64_t memory = at(area, layout_.anonymous.memory);
  const std::uint64_t owner = at(memory, *layout_.anonymous.owner);
  return owner == 0 ? "" : memory_.text(owner + layout_.anonymous.name, kCommandMax);
}

}  // namespace samepage::fingerprinter
