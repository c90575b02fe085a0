#include "pagecache/image_pages.h"

#include <array>
#include <utility>

#include "core/log.h"
#include "imagestore/image_reader.h"
#include "pagecache/page_source.h"

namespace samepage::pagecache {
namespace {

using imagestore::Image;
using imagestore::ImageReader;
using imagestore::ImageStore;

/// One version of an image, through a store of its own.
class ImagePageSource final : public PageSource {
 public:
  ImagePageSource(std::unique_ptr<ImageStore> store, std::unique_ptr<ImageReader> reader,
                  std::string image)
      : store_(std::move(store)), reader_(std::move(reader)), image_(std::move(image)) {}

  Result<void> read(std::uint64_t page, PageBuffer destination) override {
    const MutexLock lock(mutex_);
    if (TRY(reader_->read_page(page, destination))) return {};
    return fail(Errc::kNotFound, "a page of zeros");
  }
  std::string name() const override { return "image " + image_; }

 private:
  Mutex mutex_;
  const std::unique_ptr<ImageStore> store_;
  const std::unique_ptr<ImageReader> reader_ GUARDED_BY(mutex_);
  const std::string image_;
};

}  // namespace

Result<void> ImagePages::refresh(const SharingDomain& domain, const std::stop_token& stop) {
  const auto store = TRY(ImageStore::open(options_.store));
  if (store->sharing_domain() != domain.name) return {};
  ByName known;
  {
    const MutexLock lock(mutex_);
    if (domain_ == domain.name) known = images_;
  }
  ByName now;
  std::size_t pages = 0;
  for (const Image& image : TRY(store->catalog().list())) {
    if (image.sharing_domain != domain.name || stop.stop_requested()) continue;
    const auto found = known.find(image.name);
    const bool is_new = found == known.end() || found->second->version != image.head.number;
    auto scanned =
        is_new ? scan(*store, image, domain.seed, options_.pages_max - pages, stop) : found->second;
    if (!scanned) {
      log_warning("image left out of the index image={} why=\"{}\"", image.name,
                  scanned.error().message());
      continue;
    }
    pages += (*scanned)->pages.size();
    now.emplace(image.name, *std::move(scanned));
  }
  const MutexLock lock(mutex_);
  domain_ = domain.name;
  images_ = std::move(now);
  return {};
}

Result<std::shared_ptr<const ImagePages::Scanned>> ImagePages::scan(
    ImageStore& store, const Image& image, HashSeed seed, std::size_t pages_max,
    const std::stop_token& stop) const {
  const auto reader = TRY(ImageReader::open(store, image.name, image.head.number));
  auto scanned = std::make_shared<Scanned>();
  scanned->version = image.head.number;
  const std::uint64_t pages = (reader->size_bytes() + kPageSize - 1) / kPageSize;
  std::array<std::byte, kPageSize> page{};
  for (std::uint64_t number = 0; number < pages; ++number) {
    if (stop.stop_requested() || scanned->pages.size() >= pages_max) break;
    if (!TRY(reader->read_page(number, page))) continue;
    scanned->pages.push_back({number, hash_page(page, seed)});
  }
  return std::shared_ptr<const Scanned>(std::move(scanned));
}

void ImagePages::add_to(PageCache& cache, const SharingDomain& domain) const {
  ByName images;
  {
    const MutexLock lock(mutex_);
    if (domain_ != domain.name) return;
    images = images_;
  }
  for (const auto& [name, scanned] : images) {
    auto store = ImageStore::open(options_.store);
    if (!store) return;
    auto reader = ImageReader::open(**store, name, scanned->version);
    if (!reader) continue;
    cache.add(std::make_unique<ImagePageSource>(*std::move(store), *std::move(reader), name),
              scanned->pages);
  }
}

}  // namespace samepage::pagecache
