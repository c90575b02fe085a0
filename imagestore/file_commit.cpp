#include "imagestore/file_commit.h"

#include <utility>

#include "imagestore/image_source.h"
#include "imagestore/manifest.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kProgressBytes = 16U << 20U;

/// Compares a file with a version, page by page, and hands on what differs.
class Comparison {
 public:
  Comparison(const DigestKey& key, Manifest base, Commit* commit, FileCommitReport& report)
      : key_(key), base_(std::move(base)), commit_(commit), report_(report) {}

  Result<void> take(const SourceBlock& block) {
    TRY(take_hole(block.first_page));
    for (std::size_t at = 0; at < block.bytes.size(); at += kPageSize, ++next_) {
      TRY(take_page(PageView(block.bytes.data() + at, kPageSize)));
    }
    return {};
  }

  /// Pages up to `end` are zeros in the file.
  Result<void> take_hole(std::uint64_t end) {
    for (; next_ < end; ++next_) {
      if (TRY(before(next_))) TRY(note_zeros());
    }
    return {};
  }

 private:
  Result<std::optional<PageRef>> before(std::uint64_t page) {
    if (page >= base_.pages()) return std::nullopt;
    return base_.find(page);
  }

  Result<void> take_page(PageView page) {
    const auto known = TRY(before(next_));
    if (is_zero(page)) return known ? note_zeros() : Result<void>();
    if (known && known->digest == digest_page(page, key_)) return {};
    ++report_.changed_pages;
    return commit_ == nullptr ? Result<void>() : commit_->put(next_, page);
  }

  Result<void> note_zeros() {
    ++report_.changed_pages;
    ++report_.zeroed_pages;
    if (commit_ == nullptr) return {};
    return commit_->put_zeros({.first = next_, .count = 1});
  }

  const DigestKey& key_;
  Manifest base_;
  Commit* commit_;
  FileCommitReport& report_;
  std::uint64_t next_ = 0;
};

}  // namespace

Result<FileCommitReport> commit_file(ImageStore& store, const FileCommitOptions& options,
                                     const Clock& clock) {
  TRY(store.find_image(options.image));
  const ImageVersion base = TRY(store.catalog().version(options.image, options.base));
  const OpenedSource opened = TRY(open_image_source(
      {.path = options.path, .format = options.format, .follow_backing = options.follow_backing}));
  const std::uint64_t size_bytes = opened.source->size_bytes();
  if (size_bytes < base.size_bytes) {
    return fail(Errc::kInvalid, options.path.string() + " is shorter than version " +
                                    std::to_string(base.number) + " of image " + options.image +
                                    ": an image does not shrink");
  }
  std::unique_ptr<Commit> commit;
  if (!options.dry_run) {
    commit = TRY(
        Commit::begin(store, {.image = options.image, .base = base.id, .size_bytes = size_bytes}));
  }
  FileCommitReport report;
  Comparison comparison(store.keys().pages,
                        TRY(Manifest::open(store.origin(), store.keys(), base.id)), commit.get(),
                        report);
  std::uint64_t told = 0;
  while (const auto block = TRY(opened.source->next())) {
    TRY(comparison.take(*block));
    const std::uint64_t done = block->first_page * kPageSize;
    if (!options.on_progress || done < told + kProgressBytes) continue;
    told = done;
    if (!options.on_progress({.bytes_done = done, .bytes_total = size_bytes})) {
      return fail(Errc::kUnavailable, "cancelled; nothing was committed");
    }
  }
  TRY(comparison.take_hole(pages_in(size_bytes)));
  if (commit) report.commit = TRY(commit->finish(clock));
  return report;
}

}  // namespace samepage::imagestore
