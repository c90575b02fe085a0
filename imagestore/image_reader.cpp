#include "imagestore/image_reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace samepage::imagestore {

Result<std::unique_ptr<ImageReader>> ImageReader::open(ImageStore& store, const std::string& image,
                                                       std::uint64_t number) {
  TRY(store.find_image(image));
  const ImageVersion version = TRY(store.catalog().version(image, number));
  auto manifest = Manifest::open(store.origin(), store.keys(), version.id);
  if (!manifest) {
    // The catalog promised the version: that it is missing is damage.
    const Errc code =
        manifest.error().code() == Errc::kNotFound ? Errc::kCorrupt : manifest.error().code();
    return fail(code, "image " + image + ": " + manifest.error().message());
  }
  return std::unique_ptr<ImageReader>(new ImageReader(store, image, *std::move(manifest)));
}

Result<bool> ImageReader::read_page(std::uint64_t page, PageBuffer bytes) {
  if (page >= manifest_.pages()) return fail(Errc::kInvalid, "beyond the end of the image");
  const auto context = [&] { return "image " + image_ + ", page " + std::to_string(page); };
  auto ref = manifest_.find(page);
  if (!ref) return tl::unexpected(std::move(ref).error().within(context()));
  if (!*ref) return false;
  auto read = pages_.read(**ref, bytes);
  if (!read) return tl::unexpected(std::move(read).error().within(context()));
  return true;
}

Result<void> ImageReader::read(std::uint64_t offset, std::span<std::byte> bytes) {
  if (offset > size_bytes() || bytes.size() > size_bytes() - offset) {
    return fail(Errc::kInvalid, "beyond the end of the image");
  }
  std::array<std::byte, kPageSize> page;
  while (!bytes.empty()) {
    const std::size_t skip = offset % kPageSize;
    const std::size_t size = std::min(bytes.size(), kPageSize - skip);
    if (TRY(read_page(offset / kPageSize, page))) {
      std::memcpy(bytes.data(), page.data() + skip, size);
    } else {
      std::memset(bytes.data(), 0, size);
    }
    bytes = bytes.subspan(size);
    offset += size;
  }
  return {};
}

}  // namespace samepage::imagestore
