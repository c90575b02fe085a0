#include "imagestore/node_cache.h"

#include "imagestore/object_format.h"

namespace samepage::imagestore {

Result<void> NodeCache::refuse() {
  return fail(Errc::kInvalid, "the origin was opened for reading only");
}

Result<SweepReport> NodeCache::sweep(std::span<const ObjectName>, std::chrono::sys_seconds) {
  TRY(refuse());
  return SweepReport{};
}

Result<std::vector<std::byte>> NodeCache::get(const ObjectName& name) {
  if (const auto found = by_name_.find(name); found != by_name_.end()) {
    nodes_.splice(nodes_.begin(), nodes_, found->second);
    return found->second->second;
  }
  auto bytes = TRY(origin_.get(name));
  ++counts_.objects;
  counts_.bytes += bytes.size();
  if (leads_to_others(bytes)) {
    counts_.node_bytes += bytes.size();
    remember(name, bytes);
  }
  return bytes;
}

void NodeCache::remember(const ObjectName& name, const std::vector<std::byte>& bytes) {
  nodes_.emplace_front(name, bytes);
  by_name_.emplace(name, nodes_.begin());
  bytes_ += bytes.size();
  while (bytes_ > bytes_max_ && nodes_.size() > 1) {
    bytes_ -= nodes_.back().second.size();
    by_name_.erase(nodes_.back().first);
    nodes_.pop_back();
  }
}

}  // namespace samepage::imagestore
