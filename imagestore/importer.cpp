#include "imagestore/importer.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "imagestore/image_source.h"
#include "imagestore/manifest.h"
#include "imagestore/page_packer.h"
#include "imagestore/worker_pool.h"

// Import is a line of four stations: read blocks, digest their pages (workers), drop pages that the
// store has and gather the others into extents, compress extents (workers) and append them. The
// first, third and last run on the caller's thread, in the image's order, so nothing but the pure
// stations is shared and an image always makes the same extents. What waits between stations is
// bounded: 8 blocks and 16 extents, 6 MiB. A manifest names a page's place, which is known when its
// extent is full: until then the page waits, by its digest.

namespace samepage::imagestore {
namespace {

using std::chrono_literals::operator""min;
using std::chrono_literals::operator""ms;

constexpr std::size_t kBlocksMax = 8;
constexpr std::uint64_t kRoundPages = 1U << 18U;  // Between commits: bounds memory.
constexpr std::size_t kUnplacedMax = 1U << 16U;   // Pages that wait for their place.
constexpr auto kProgressEvery = 100ms;
constexpr auto kSweepsAreFar = 10min;  // No grace time is as short.

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

/// The blocks of a source, digested by workers, in order.
class DigestedBlocks {
 public:
  DigestedBlocks(ImageSource& source, WorkerPool& workers, const DigestKey& key)
      : source_(source), workers_(workers), key_(key) {}

  /// None at the end. Errors are the source's.
  Result<std::optional<DigestedBlock>> next() {
    while (!ended_ && digesting_.size() < kBlocksMax) {
      auto block = TRY(source_.next());
      if (!block) {
        ended_ = true;
        break;
      }
      digesting_.push_back(workers_.submit([key = key_, taken = *std::move(block)]() mutable {
        return digest_block(std::move(taken), key);
      }));
    }
    if (digesting_.empty()) return std::nullopt;
    auto digested = std::optional(digesting_.front().get());
    digesting_.pop_front();
    return digested;
  }

 private:
  ImageSource& source_;
  WorkerPool& workers_;
  DigestKey key_;
  bool ended_ = false;
  std::deque<std::future<DigestedBlock>> digesting_;
};

class Import {
 public:
  Import(ImageStore& store, const ImportOptions& options, const Clock& clock)
      : store_(store),
        options_(options),
        clock_(clock),
        workers_("import", std::max(1U, options.threads)),
        packer_(store, &workers_, options.extent_pages) {}

  /// Stores everything and returns what to name. The image is not visible yet.
  Result<ImportReport> run();

 private:
  Result<OpenedSource> open_source();
  Result<void> plan();
  Result<void> take(const DigestedBlock& digested);
  Result<void> set_placed();
  Result<void> end_round();
  Result<void> tell_progress(std::uint64_t bytes_done, bool last);

  ImageStore& store_;
  const ImportOptions& options_;
  const Clock& clock_;
  WorkerPool workers_;
  PagePacker packer_;
  std::optional<ManifestBuilder> builder_;
  ImportReport report_;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t bytes_before_ = 0;  ///< Read in the pass before.
  std::uint64_t data_pages_ = 0;
  std::uint64_t pages_in_round_ = 0;
  std::chrono::steady_clock::time_point told_at_;
  std::deque<std::pair<std::uint64_t, PageDigest>> unplaced_;
};

Result<OpenedSource> Import::open_source() {
  return open_image_source({.path = options_.path,
                            .format = options_.format,
                            .follow_backing = options_.follow_backing});
}

Result<ImportReport> Import::run() {
  const auto began_at = clock_.now();
  if (!options_.order.empty()) TRY(plan());
  const OpenedSource opened = TRY(open_source());
  size_bytes_ = opened.source->size_bytes();
  builder_.emplace(store_.origin(), store_.keys(), size_bytes_);
  DigestedBlocks blocks(*opened.source, workers_, store_.keys().pages);
  while (const auto block = TRY(blocks.next())) {
    TRY(take(*block));
    TRY(tell_progress(block->block.first_page * kPageSize + block->block.bytes.size(), false));
  }
  TRY(packer_.finish());
  TRY(set_placed());
  report_.version.id = TRY(builder_->finish());
  // The last word on whether it is cancelled, while all can be taken back.
  TRY(tell_progress(size_bytes_, true));
  TRY(store_.commit());
  if (clock_.now() - began_at > kSweepsAreFar) TRY(keep_version(store_, report_.version.id));
  report_.version.source_format = opened.format;
  report_.version.size_bytes = size_bytes_;
  report_.pages = pages_in(size_bytes_);
  report_.zero_pages = report_.pages - data_pages_;
  report_.new_pages = packer_.new_pages();
  report_.duplicate_pages = data_pages_ - report_.new_pages;
  report_.extents = packer_.extents();
  report_.version.data_bytes = data_pages_ * kPageSize;
  report_.version.new_bytes = report_.new_pages * kPageSize;
  report_.version.stored_bytes = packer_.stored_bytes() + builder_->stored_bytes();
  return report_;
}

/// Finds out which pages of the order will be stored: only then is it known what lies together.
Result<void> Import::plan() {
  std::unordered_set<PageDigest> wanted(options_.order.begin(), options_.order.end());
  std::unordered_set<PageDigest> coming;
  const OpenedSource opened = TRY(open_source());
  size_bytes_ = opened.source->size_bytes();
  DigestedBlocks blocks(*opened.source, workers_, store_.keys().pages);
  while (const auto block = TRY(blocks.next())) {
    for (const auto& digest : block->digests) {
      if (!digest || wanted.erase(*digest) == 0) continue;
      if (!TRY(store_.pages().find(*digest))) coming.insert(*digest);
    }
    TRY(tell_progress(block->block.first_page * kPageSize, false));
  }
  std::vector<PageDigest> order;
  for (const PageDigest& digest : options_.order) {
    if (coming.erase(digest) > 0) order.push_back(digest);
  }
  packer_.lay_out(order);
  bytes_before_ = size_bytes_;
  return {};
}

Result<void> Import::take(const DigestedBlock& digested) {
  for (std::size_t index = 0; index < digested.digests.size(); ++index) {
    const auto& digest = digested.digests[index];
    if (!digest) continue;
    ++data_pages_;
    ++pages_in_round_;
    TRY(packer_.add(*digest, page_of(digested.block, index)));
    unplaced_.emplace_back(digested.block.first_page + index, *digest);
  }
  TRY(set_placed());
  if (unplaced_.size() >= kUnplacedMax) {
    TRY(packer_.flush());
    TRY(set_placed());
  }
  return pages_in_round_ >= kRoundPages ? end_round() : Result<void>();
}

/// Tells the manifest of pages, in order, as far as their places are known.
Result<void> Import::set_placed() {
  while (!unplaced_.empty()) {
    const auto& [page, digest] = unplaced_.front();
    const auto place = packer_.place(digest);
    if (!place) break;
    TRY(builder_->set(page, PageRef{.digest = digest, .place = *place}));
    unplaced_.pop_front();
  }
  return {};
}

Result<void> Import::end_round() {
  pages_in_round_ = 0;
  TRY(packer_.flush());
  TRY(set_placed());
  TRY(store_.commit());
  packer_.forget_places();
  return {};
}

Result<void> Import::tell_progress(std::uint64_t bytes_done, bool last) {
  if (!options_.on_progress) return {};
  const auto now = clock_.now();
  if (!last && now - told_at_ < kProgressEvery) return {};
  told_at_ = now;
  const std::uint64_t passes = options_.order.empty() ? 1 : 2;
  const ImportProgress progress{.bytes_done = bytes_before_ + std::min(bytes_done, size_bytes_),
                                .bytes_total = passes * size_bytes_};
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
  if (options.extent_pages == 0 || options.extent_pages > kExtentPagesMax) {
    return fail(Errc::kInvalid, "an extent has 1 to " + std::to_string(kExtentPagesMax) + " pages");
  }
  // Known before hours of reading; Catalog::add() decides.
  const auto taken = store.catalog().find(name);
  if (taken) {
    return fail(Errc::kInvalid, "image " + name + " exists already; choose another name");
  }
  if (taken.error().code() != Errc::kNotFound) return tl::unexpected(taken.error());
  auto report = Import(store, options, clock).run();
  if (!report) {
    Error reason = std::move(report).error();
    // What cannot be taken back is mended when the store is opened for writing again.
    if (auto discarded = store.discard(); !discarded) {
      return tl::unexpected(std::move(reason).within("the store needs repair"));
    }
    return tl::unexpected(std::move(reason).within("import " + options.path.string()));
  }
  report->name = name;
  report->version.imported_at = std::chrono::floor<std::chrono::seconds>(clock.today());
  TRY(store.catalog().add(name, store.sharing_domain(), report->version));
  return report;
}

}  // namespace samepage::imagestore
