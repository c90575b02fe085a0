#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/catalog.h"
#include "imagestore/diff.h"
#include "imagestore/image_store.h"

namespace samepage::imagestore {

struct CommitOptions {
  std::string image;           ///< Whose head moves.
  VersionId base;              ///< What the changes were made on: a version of the image.
  std::uint64_t size_bytes{};  ///< Of the new version; 0: the base's. An image does not shrink.

  /// Told the version before the head moves to it, so that a commit that was cut off after that can
  /// be told from one that was not. An error ends the commit.
  std::function<Result<void>(const VersionId&)> before_publish = {};
};

struct CommitReport {
  std::uint64_t number = 0;  ///< Of the new version within its image.
  ImageVersion version;
  std::uint64_t changed_pages = 0;    ///< That were put.
  std::uint64_t zero_pages = 0;       ///< Of these: zeros.
  std::uint64_t duplicate_pages = 0;  ///< Of these: held by the store already.
  std::uint64_t rebases = 0;          ///< Times that another commit came first.
};

/// A new version of an image, out of changed pages on top of a version.
///
/// Invariant: writes extents of pages that the store does not hold, and the manifest's nodes above
/// changed pages; nothing else. The image's head moves by compare-and-swap, after all that the
/// version consists of is durable: a commit that was not acknowledged is there whole or not at all.
///
/// When another commit moved the head since `base`, the changes are put on top of the new head,
/// unless a page was changed by both: then the commit fails and the image is as it was. Equal
/// content is no conflict.
///
/// Any number of commits, in any processes, go on at the same time.
/// Threads: one at a time. Lifetime: borrows the store, which is open for writing; one commit or
/// import per store object at a time. Destroying a commit that did not finish takes it back.
class Commit final {
 public:
  /// kNotFound: no such image. kInvalid: the base is no version of it, the size is below the
  /// base's, or the image belongs to another sharing domain. kCorrupt: the base is damaged.
  static Result<std::unique_ptr<Commit>> begin(ImageStore& store, const CommitOptions& options);

  ~Commit();
  Commit(const Commit&) = delete;
  Commit& operator=(const Commit&) = delete;

  /// Takes whole pages from `first_page` on; pages of zeros take no room. Pages that follow each
  /// other here lie together in extents, so boot order here is boot order in the store; otherwise
  /// any order does. The last put of a page counts. kInvalid: beyond the size. Others are the
  /// origin's.
  Result<void> put(std::uint64_t first_page, std::span<const std::byte> pages);

  /// Makes pages zero. kInvalid: beyond the size.
  Result<void> put_zeros(const PageRange& pages);

  /// Makes the version, durably, and moves the head; when nothing was put or it changes nothing,
  /// the head is what it returns. The commit is used up.
  /// kInvalid: pages were changed by another commit too; the message names them, and conflicts()
  /// has them. kUnavailable: too many others commit to this image, or a cleaner took something
  /// away; begin again. kIo: the disk is full or refused.
  Result<CommitReport> finish(const Clock& clock);

  /// After finish() said kInvalid: the pages that both changed.
  const std::vector<PageRange>& conflicts() const;

 private:
  class Impl;
  explicit Commit(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::imagestore
