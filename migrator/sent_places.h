#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/mutex.h"
#include "core/page_hash.h"
#include "migrator/stream_parser.h"

namespace samepage::migrator {

/// No place in the stream.
inline constexpr std::uint64_t kNowhere = UINT64_MAX;

/// Where in the stream the latest version of each page was sent, by its address in the guest.
/// Forgets what lies more than `reach` back. Threads: one at a time.
class LatestVersions {
 public:
  explicit LatestVersions(std::uint64_t reach) : reach_(reach) {}

  /// Notes that the page of `record` is sent at `place`, and returns where it was sent before:
  /// kNowhere when it was not, or too long ago.
  std::uint64_t note(const StreamToken& record, std::uint64_t place);

 private:
  const std::uint64_t reach_;
  std::unordered_map<std::uint64_t, std::uint64_t> places_;
};

/// Where in the stream pages of some content were sent, by their hashes. Forgets as above.
/// Threads: every method may be called from any thread.
class SentContents {
 public:
  struct Page {
    PageHash hash;
    std::uint64_t place = 0;
    std::uint64_t before = kNowhere;  ///< Says note(): a place in front of the batch.
  };

  explicit SentContents(std::uint64_t reach) : reach_(reach) {}

  /// Notes the pages of a batch that begins at `begin`, and says where each content was sent
  /// before.
  void note(std::span<Page> pages, std::uint64_t begin);

 private:
  const std::uint64_t reach_;
  Mutex mutex_;
  std::unordered_map<PageHash, std::uint64_t> places_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
