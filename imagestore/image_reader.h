#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/result.h"
#include "imagestore/image_store.h"
#include "imagestore/manifest.h"
#include "imagestore/page_reader.h"

namespace samepage::imagestore {

/// One version of an image as the guest sees it: bytes from 0 to size_bytes().
///
/// Invariant: every page that is handed out matches the digest that the version's manifest names.
/// Threads: one at a time; a thread of its own opens a store and a reader of its own.
/// Lifetime: borrows the store.
class ImageReader final {
 public:
  /// Version `number` of `image`, 0 for the newest. kNotFound: no such image or version. kInvalid:
  /// it belongs to a sharing domain that the store was not opened for. kCorrupt: its manifest is
  /// damaged.
  static Result<std::unique_ptr<ImageReader>> open(ImageStore& store, const std::string& image,
                                                   std::uint64_t number = 0);

  std::uint64_t size_bytes() const { return manifest_.size_bytes(); }

  /// Fills `bytes` from `offset` on. kInvalid: the range ends beyond the image. kCorrupt: a page in
  /// it is damaged; the message names image, page and pack, and `bytes` holds garbage.
  Result<void> read(std::uint64_t offset, std::span<std::byte> bytes);

  /// Page `page` alone, whose bytes beyond the image's end are zero; false, and nothing is written,
  /// when it is all zeros. Errors as read().
  Result<bool> read_page(std::uint64_t page, PageBuffer bytes);

 private:
  ImageReader(ImageStore& store, std::string image, Manifest manifest)
      : image_(std::move(image)), manifest_(std::move(manifest)), pages_(store) {}

  std::string image_;
  Manifest manifest_;
  PageReader pages_;
};

}  // namespace samepage::imagestore
