#include "imagestore/clone.h"

#include <chrono>

namespace samepage::imagestore {

Result<ImageVersion> clone_image(ImageStore& store, const CloneOptions& options,
                                 const Clock& clock) {
  const Image image = TRY(store.find_image(options.source));
  ImageVersion version = image.head;
  if (options.number != 0) {
    version = TRY(store.catalog().version(options.source, options.number));
  }
  version.number = 1;
  version.new_bytes = 0;
  version.stored_bytes = 0;
  version.imported_at = std::chrono::floor<std::chrono::seconds>(clock.today());
  TRY(store.catalog().add(options.name, store.sharing_domain(), version));
  return version;
}

}  // namespace samepage::imagestore
