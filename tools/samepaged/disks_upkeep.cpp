#include <algorithm>
#include <system_error>

#include <sys/stat.h>

#include "core/log.h"
#include "imagestore/mirror.h"
#include "tools/samepaged/disk_entry.h"

namespace samepage::agent {

using imagestore::DirOrigin;
using imagestore::ImageStore;

void Disks::renew_leases() {
  const auto disks = all();
  if (disks.empty()) return;
  ImageStore::Options options = options_.store;
  options.access = DirOrigin::Access::kRead;
  const auto store = ImageStore::open(options);
  if (!store) {
    log_warning("leases on image versions were not renewed why=\"{}\"", store.error().message());
    return;
  }
  const auto now = std::chrono::floor<std::chrono::seconds>(clock_.today());
  for (const auto& entry : disks) {
    const auto held = (*store)->catalog().hold(entry->record.base, holder_of(entry->record.name),
                                               {.from = now, .lasts = options_.lease});
    if (!held) {
      log_error("the version under a disk is not held disk={} why=\"{}\"", entry->record.name,
                held.error().message());
    }
  }
}

/// The mirrors that no disk uses, those used longest ago first, as far as they are too much.
void Disks::prune_mirrors() {
  struct Unused {
    std::filesystem::path path;
    std::filesystem::file_time_type used;
    std::uint64_t bytes = 0;
  };
  std::vector<Unused> mirrors;
  std::uint64_t bytes = 0;
  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(options_.mirrors, error)) {
    struct stat about {};
    if (::stat((item.path() / "data").c_str(), &about) != 0) continue;
    constexpr std::uint64_t kBlockBytes = 512;
    const std::uint64_t taken = static_cast<std::uint64_t>(about.st_blocks) * kBlockBytes;
    bytes += taken;
    mirrors.push_back({item.path(), item.last_write_time(error), taken});
  }
  std::sort(mirrors.begin(), mirrors.end(),
            [](const Unused& a, const Unused& b) { return a.used < b.used; });
  for (const Unused& mirror : mirrors) {
    if (bytes <= options_.mirror_bytes_max) return;
    const auto removed = imagestore::Mirror::remove_unused(mirror.path);
    if (!removed) {
      log_warning("a mirror stays why=\"{}\"", removed.error().message());
    } else if (*removed) {
      bytes -= mirror.bytes;
    }
  }
}

}  // namespace samepage::agent
