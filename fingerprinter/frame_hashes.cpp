#include "fingerprinter/frame_hashes.h"

namespace samepage::fingerprinter {

std::optional<FrameHashes::Content> FrameHashes::find(std::uint64_t frame) const {
  const MutexLock lock(mutex_);
  const auto found = contents_.find(frame);
  if (found == contents_.end()) return std::nullopt;
  return found->second;
}

void FrameHashes::add(std::uint64_t frame, Content content) {
  const MutexLock lock(mutex_);
  if (contents_.size() < kFramesMax) contents_.emplace(frame, content);
}

}  // namespace samepage::fingerprinter
