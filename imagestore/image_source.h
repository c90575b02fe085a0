#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace samepage::imagestore {

/// A run of whole pages of an image; bytes beyond the image's end are zero.
struct SourceBlock {
  std::uint64_t first_page = 0;
  std::vector<std::byte> bytes;
};

/// A disk image outside of the store, read front to back, without its holes. A file read directly,
/// or QEMU's view of one.
/// Threads: one at a time.
class ImageSource {
 public:
  static constexpr std::size_t kBlockBytes = 512U << 10U;  ///< A block's at most.

  virtual ~ImageSource() = default;

  virtual std::uint64_t size_bytes() const = 0;

  /// The next block in ascending order, none at the end. What lies between two blocks is zero.
  /// kIo: it cannot be read, or became shorter. kTimedOut: QEMU did not answer in a minute.
  /// kUnavailable: QEMU ended early.
  virtual Result<std::optional<SourceBlock>> next() = 0;
};

struct SourceOptions {
  std::filesystem::path path;
  std::string format = {};      ///< Empty: as the content says.
  bool follow_backing = false;  ///< Read through the image's backing files, wherever they are.
};

struct OpenedSource {
  std::string format;
  std::unique_ptr<ImageSource> source;
};

/// Opens an image by its content. Files other than the one named are read only on request: an image
/// that needs a backing file, a data file or extents elsewhere is kInvalid, with a sentence that
/// says what to do. kNotFound: no such file. kInvalid also: not a file or block device, not an
/// image of that format, or larger than the store takes. Other errors as ImageSource::next().
Result<OpenedSource> open_image_source(const SourceOptions& options);

}  // namespace samepage::imagestore
