#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include "core/mutex.h"
#include "core/page_hash.h"

namespace samepage::fingerprinter {

/// What frames that several mappings show (KSM's) hold, so that one pass over a host's guests reads
/// each of them once. Frames are given back and used anew: use an object for one pass only.
///
/// Threads: every method may be called from any thread.
class FrameHashes {
 public:
  /// What is beyond is read as often as it is mapped.
  static constexpr std::size_t kFramesMax = 4U << 20U;

  struct Content {
    PageHash hash;
    bool zero = false;
  };

  std::optional<Content> find(std::uint64_t frame) const;
  void add(std::uint64_t frame, Content content);

 private:
  mutable Mutex mutex_;
  std::unordered_map<std::uint64_t, Content> contents_ GUARDED_BY(mutex_);
};

}  // namespace samepage::fingerprinter
