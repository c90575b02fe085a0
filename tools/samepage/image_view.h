#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"
#include "imagestore/image_reader.h"
#include "imagestore/image_store.h"

namespace samepage::cli {

/// An image store as a tree of read-only files, `IMAGE/VERSION`: what a mount shows.
///
/// Threads: one at a time. Memory: a few readers. Errors: kNotFound: nothing has that path. Others:
/// ImageReader's.
class ImageView final {
 public:
  explicit ImageView(std::unique_ptr<imagestore::ImageStore> store) : store_(std::move(store)) {}

  enum class Kind : std::uint8_t { kFolder, kFile };
  struct Node {
    Kind kind = Kind::kFolder;
    std::uint64_t bytes = 0;
    std::int64_t modified = 0;  ///< Seconds since 1970.
  };

  /// `path` begins with a slash.
  Result<Node> find(std::string_view path);

  /// The names in a folder.
  Result<std::vector<std::string>> list(std::string_view path);

  /// Bytes of a file from `offset` on; fewer at its end. Verified page by page.
  Result<std::size_t> read(std::string_view path, std::uint64_t offset, std::span<std::byte> bytes);

 private:
  static constexpr std::size_t kReadersMax = 16;
  using Readers = std::list<std::pair<std::string, std::unique_ptr<imagestore::ImageReader>>>;

  Result<imagestore::ImageVersion> version_of(std::string_view path);
  Result<imagestore::ImageReader*> reader_of(std::string_view path);

  std::unique_ptr<imagestore::ImageStore> store_;
  Readers readers_;  ///< Most recently used first.
};

}  // namespace samepage::cli
