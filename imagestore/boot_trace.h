#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/catalog.h"
#include "imagestore/manifest_node.h"
#include "imagestore/object_format.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// Pages of a trace at most: 256 MiB of reading.
inline constexpr std::size_t kTracePagesMax = 65'536;

struct TracedPage {
  std::uint64_t page = 0;
  PageDigest digest;  ///< What it was, so that a trace can be followed on another version.

  friend bool operator==(const TracedPage&, const TracedPage&) = default;
};

/// The pages with data that a guest read first after its disk was opened, in that order.
struct BootTrace {
  VersionId version;  ///< That was read.
  std::vector<TracedPage> pages;

  std::vector<std::uint64_t> numbers() const;
  std::vector<PageDigest> digests() const;
};

/// The form in which the catalog keeps it, with a digest under the domain's key over all of it.
std::vector<std::byte> encode_trace(const BootTrace& trace, const DomainKeys& keys);

/// kCorrupt: no trace, damaged, or made under another key. kInvalid: of a newer release.
Result<BootTrace> decode_trace(std::span<const std::byte> bytes, const DomainKeys& keys);

/// The trace of one version as it would be on another: pages that both have alike stay where they
/// are, others are looked for by content, and what the other version does not have is left out.
/// Costs what differs between the versions. Errors: Manifest's.
Result<BootTrace> follow_trace(Origin& origin, const DomainKeys& keys, const BootTrace& trace,
                               const VersionId& version);

/// The trace of the newest version of an image that has one. kNotFound: no such image, or no boot
/// from it was recorded.
Result<BootTrace> newest_trace(Catalog& catalog, const DomainKeys& keys, const std::string& image);

/// Takes down which pages a guest reads first. Threads: any.
class TraceRecorder {
 public:
  explicit TraceRecorder(std::uint64_t pages) : seen_((pages + 63) / 64) {}

  /// The guest read these; does nothing after finish() or kTracePagesMax pages.
  void touch(std::uint64_t first, std::uint64_t count);

  void finish();

  /// The page numbers from position `from` on, in order.
  std::vector<std::uint64_t> since(std::size_t from) const;

 private:
  std::vector<std::atomic<std::uint64_t>> seen_;
  std::atomic<bool> is_over_{false};
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> pages_;
};

}  // namespace samepage::imagestore
