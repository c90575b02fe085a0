#include "imagestore/importer.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/check.h"
#include "imagestore/extent.h"
#include "imagestore/image_source.h"
#include "imagestore/manifest.h"
#include "imagestore/worker_pool.h"

// Import is a line of four stations: read blocks, digest their pages (workers), drop pages that the
// store has and gather the others into extents, compress extents (workers) and append them. The
// first, third and last run on the caller's thread, in the image's order, so nothing but the pure
// stations is shared and an image always makes the same extents. What waits between stations is
// bounded: 8 blocks and 16 extents, 6 MiB.

namespace samepage::imagestore {
namespace {

using std::chrono_literals::operator""ms;

constexpr std::size_t kBlocksMax = 8;
constexpr std::size_t kExtentsMax = 16;
constexpr std::uint64_t kRoundPages = 1U << 20U;  // New pages between commits: bounds SQLite's log.
constexpr auto kProgressEvery = 100ms;

struct DigestedBlock {
  SourceBlock block;
  std::vector<std::optional<PageDigest>> digests;  // None for a page of zeros.
};

PageView page_of(const SourceBlock& block, std::size_t index) {
  return PageView(block.bytes.data() + index * kPageSize, kPageSize);
}

DigestedBlock digest_block(SourceBlock block, const DigestKey& key) {
  DigestedBlock digested{.block = std::move(block), .digests = {}};
  const std::size_t pages = digested.block.bytes.size() / kPageSize;
  digested.digests.reserve(pages);
  for (std::size_t index = 0; index < pages; ++index) {
    const PageView page = page_of(digested.block, index);
    digested.digests.push_back(is_zero(page) ? std::nullopt
                                             : std::optional(digest_page(page, key)));
  }
  return digested;
}

struct PackedExtent {
  EncodedExtent encoded;
  std::vector<PageDigest> digests;
};

class Import {
 public:
  Import(ImageStore& store, const ImportOptions& options, ImageSource& source, const Clock& clock)
      : store_(store),
        options_(options),
        source_(source),
        clock_(clock),
        builder_(store.origin(), store.keys(), source.size_bytes()),
        workers_("import", std::max(1U, options.threads)) {}

  /// Stores everything and returns what to name. The image is not visible yet.
  Result<ImportReport> run();

 private:
  Result<void> read_ahead();
  Result<void> take(const DigestedBlock& digested);
  Result<void> gather(const PageDigest& digest, PageView page);
  void pack();
  Result<void> append_packed(std::size_t left);
  Result<void> tell_progress(bool last);

  ImageStore& store_;
  const ImportOptions& options_;
  ImageSource& source_;
  const Clock& clock_;
  ManifestBuilder builder_;
  ImportReport report_;
  bool source_ended_ = false;
  std::uint64_t bytes_done_ = 0;
  std::uint64_t pages_at_commit_ = 0;
  std::chrono::steady_clock::time_point told_at_;
  Extent open_extent_;
  std::unordered_set<PageDigest> unindexed_;  // Gathered, and not yet in the page index.
  std::deque<std::future<DigestedBlock>> digesting_;
  std::deque<std::future<PackedExtent>> packing_;
  WorkerPool workers_;  // Last, so that it ends first.
};

Result<ImportReport> Import::run() {
  TRY(read_ahead());
  while (!digesting_.empty()) {
    const DigestedBlock digested = digesting_.front().get();
    digesting_.pop_front();
    TRY(read_ahead());
    TRY(take(digested));
    TRY(tell_progress(false));
  }
  pack();
  TRY(append_packed(0));
  report_.version.id = TRY(builder_.finish());
  TRY(store_.commit());
  bytes_done_ = source_.size_bytes();
  TRY(tell_progress(true));
  report_.version.size_bytes = source_.size_bytes();
  report_.pages = pages_in(source_.size_bytes());
  const std::uint64_t data_pages = report_.new_pages + report_.duplicate_pages;
  report_.zero_pages = report_.pages - data_pages;
  report_.version.data_bytes = data_pages * kPageSize;
  report_.version.new_bytes = report_.new_pages * kPageSize;
  return report_;
}

Result<void> Import::read_ahead() {
  while (!source_ended_ && digesting_.size() < kBlocksMax) {
    auto block = TRY(source_.next());
    if (!block) {
      source_ended_ = true;
      break;
    }
    digesting_.push_back(
        workers_.submit([key = store_.keys().pages, taken = *std::move(block)]() mutable {
          return digest_block(std::move(taken), key);
        }));
  }
  return {};
}

Result<void> Import::take(const DigestedBlock& digested) {
  for (std::size_t index = 0; index < digested.digests.size(); ++index) {
    const auto& digest = digested.digests[index];
    if (!digest) continue;
    TRY(builder_.set(digested.block.first_page + index, *digest));
    if (unindexed_.contains(*digest) || TRY(store_.pages().contains(*digest))) {
      ++report_.duplicate_pages;
      continue;
    }
    TRY(gather(*digest, page_of(digested.block, index)));
  }
  bytes_done_ = digested.block.first_page * kPageSize + digested.block.bytes.size();
  return {};
}

Result<void> Import::gather(const PageDigest& digest, PageView page) {
  ++report_.new_pages;
  unindexed_.insert(digest);
  open_extent_.digests.push_back(digest);
  open_extent_.pages.insert(open_extent_.pages.end(), page.begin(), page.end());
  if (open_extent_.digests.size() < kExtentPagesMax) return {};
  pack();
  return append_packed(kExtentsMax);
}

void Import::pack() {
  if (open_extent_.digests.empty()) return;
  ++report_.extents;
  packing_.push_back(
      workers_.submit([keys = store_.keys(), extent = std::exchange(open_extent_, {})]() mutable {
        return PackedExtent{.encoded = encode_extent(extent, keys),
                            .digests = std::move(extent.digests)};
      }));
}

/// Appends the oldest extents until `left` are being compressed.
Result<void> Import::append_packed(std::size_t left) {
  while (packing_.size() > left) {
    const PackedExtent packed = packing_.front().get();
    packing_.pop_front();
    TRY(store_.origin().put(packed.encoded.name, packed.encoded.bytes));
    TRY(store_.pages().add(packed.encoded.name, packed.digests));
    for (const PageDigest& digest : packed.digests) unindexed_.erase(digest);
    report_.version.stored_bytes += packed.encoded.bytes.size();
  }
  if (report_.new_pages - pages_at_commit_ < kRoundPages) return {};
  pages_at_commit_ = report_.new_pages;
  return store_.commit();
}

Result<void> Import::tell_progress(bool last) {
  if (!options_.on_progress) return {};
  const auto now = clock_.now();
  if (!last && now - told_at_ < kProgressEvery) return {};
  told_at_ = now;
  const ImportProgress progress{.bytes_done = std::min(bytes_done_, source_.size_bytes()),
                                .bytes_total = source_.size_bytes()};
  if (options_.on_progress(progress)) return {};
  return fail(Errc::kUnavailable, "cancelled; nothing was imported");
}

Result<std::string> image_name(const ImportOptions& options) {
  std::string name = options.name.empty() ? options.path.stem().string() : options.name;
  auto checked = check_image_name(name);
  if (checked) return name;
  const std::string hint = options.name.empty() ? "; choose one with --name" : "";
  return fail(Errc::kInvalid, "\"" + name + "\": " + checked.error().message() + hint);
}

}  // namespace

Result<ImportReport> import_image(ImageStore& store, const ImportOptions& options,
                                  const Clock& clock) {
  const std::string name = TRY(image_name(options));
  // Known before hours of reading; Catalog::add() decides.
  const auto taken = store.catalog().find(name);
  if (taken) {
    return fail(Errc::kInvalid, "image " + name + " exists already; choose another name");
  }
  if (taken.error().code() != Errc::kNotFound) return tl::unexpected(taken.error());
  const OpenedSource opened = TRY(open_image_source(
      {.path = options.path, .format = options.format, .follow_backing = options.follow_backing}));
  auto report = Import(store, options, *opened.source, clock).run();
  if (!report) {
    Error reason = std::move(report).error();
    // What cannot be taken back is mended when the store is opened for writing again.
    if (auto discarded = store.discard(); !discarded) {
      return tl::unexpected(std::move(reason).within("the store needs repair"));
    }
    return tl::unexpected(std::move(reason).within("import " + options.path.string()));
  }
  report->name = name;
  report->version.source_format = opened.format;
  report->version.imported_at = std::chrono::floor<std::chrono::seconds>(clock.today());
  TRY(store.catalog().add(name, store.sharing_domain(), report->version));
  return report;
}

}  // namespace samepage::imagestore
