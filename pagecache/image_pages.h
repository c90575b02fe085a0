#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "core/mutex.h"
#include "core/sharing_domain.h"
#include "fingerprinter/page_scanner.h"
#include "imagestore/image_store.h"
#include "pagecache/page_cache.h"

namespace samepage::pagecache {

/// The pages of the newest versions of the images in this host's store, as sources of a PageCache:
/// what guests have read from their disks they hold in their page caches, page for page.
///
/// Threads: refresh() from one thread at a time, add_to() from any.
class ImagePages final {
 public:
  struct Options {
    imagestore::ImageStore::Options store;
    std::size_t pages_max = 1U << 20U;  ///< Of all images; later ones are left out.
  };

  explicit ImagePages(Options options) : options_(std::move(options)) {}

  /// Hashes the images that are new, for the domain that the store is of, and forgets those that
  /// are gone. Reads all of them: slow. kNotFound: there is no store. Else as the store's.
  Result<void> refresh(const SharingDomain& domain, const std::stop_token& stop);

  /// Adds the images of the domain that were hashed so far.
  void add_to(PageCache& cache, const SharingDomain& domain) const;

 private:
  struct Scanned {
    std::uint64_t version = 0;
    std::vector<fingerprinter::ScannedPage> pages;
  };
  using ByName = std::map<std::string, std::shared_ptr<const Scanned>>;

  Result<std::shared_ptr<const Scanned>> scan(imagestore::ImageStore& store,
                                              const imagestore::Image& image, HashSeed seed,
                                              std::size_t pages_max,
                                              const std::stop_token& stop) const;

  const Options options_;
  mutable Mutex mutex_;
  std::string domain_ GUARDED_BY(mutex_);
  ByName images_ GUARDED_BY(mutex_);
};

}  // namespace samepage::pagecache
