#include "tools/samepage/image_view.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>

namespace samepage::cli {
namespace {

struct Place {
  std::string image;   ///< Empty: the top.
  std::string number;  ///< Empty: the image's folder.
};

Place place_of(std::string_view path) {
  path.remove_prefix(std::min<std::size_t>(path.size(), 1));
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos) return {.image = std::string(path), .number = {}};
  return {.image = std::string(path.substr(0, slash)),
          .number = std::string(path.substr(slash + 1))};
}

/// A version's number in the one way in which it is written.
std::optional<std::uint64_t> number_of(const std::string& text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || number == 0 || text.front() == '0') {
    return std::nullopt;
  }
  return number;
}

std::int64_t seconds(std::chrono::sys_seconds time) {
  return time.time_since_epoch().count();
}

}  // namespace

Result<imagestore::ImageVersion> ImageView::version_of(std::string_view path) {
  const Place place = place_of(path);
  const auto number = place.number.empty() ? std::nullopt : number_of(place.number);
  if (!number) return fail(Errc::kNotFound, "no version has that name");
  TRY(store_->find_image(place.image));
  return store_->catalog().version(place.image, *number);
}

Result<ImageView::Node> ImageView::find(std::string_view path) {
  const Place place = place_of(path);
  if (place.image.empty()) return Node{};
  if (place.number.empty()) {
    const auto image = TRY(store_->find_image(place.image));
    return Node{.kind = Kind::kFolder, .bytes = 0, .modified = seconds(image.head.imported_at)};
  }
  const auto version = TRY(version_of(path));
  return Node{
      .kind = Kind::kFile, .bytes = version.size_bytes, .modified = seconds(version.imported_at)};
}

Result<std::vector<std::string>> ImageView::list(std::string_view path) {
  const Place place = place_of(path);
  std::vector<std::string> names;
  if (place.image.empty()) {
    for (const auto& image : TRY(store_->catalog().list())) {
      if (image.sharing_domain == store_->sharing_domain()) names.push_back(image.name);
    }
    return names;
  }
  if (!place.number.empty()) return fail(Errc::kNotFound, "not a folder");
  TRY(store_->find_image(place.image));
  for (const auto& version : TRY(store_->catalog().versions(place.image))) {
    names.push_back(std::to_string(version.number));
  }
  return names;
}

Result<imagestore::ImageReader*> ImageView::reader_of(std::string_view path) {
  const auto known = std::find_if(readers_.begin(), readers_.end(),
                                  [&](const auto& reader) { return reader.first == path; });
  if (known != readers_.end()) {
    readers_.splice(readers_.begin(), readers_, known);
    return readers_.front().second.get();
  }
  const auto version = TRY(version_of(path));
  auto reader = TRY(imagestore::ImageReader::open(*store_, place_of(path).image, version.number));
  if (readers_.size() >= kReadersMax) readers_.pop_back();
  readers_.emplace_front(std::string(path), std::move(reader));
  return readers_.front().second.get();
}

Result<std::size_t> ImageView::read(std::string_view path, std::uint64_t offset,
                                    std::span<std::byte> bytes) {
  imagestore::ImageReader* const reader = TRY(reader_of(path));
  if (offset >= reader->size_bytes()) return std::size_t{0};
  bytes = bytes.first(std::min<std::uint64_t>(bytes.size(), reader->size_bytes() - offset));
  TRY(reader->read(offset, bytes));
  return bytes.size();
}

}  // namespace samepage::cli
