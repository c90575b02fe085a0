#include "imagestore/image_store.h"

#include <system_error>
#include <utility>

#include "imagestore/domain_key.h"
#include "imagestore/extent.h"

namespace samepage::imagestore {
namespace {

/// The store's own key. One that is lost is not made anew while a catalog is there: its images
/// could never be verified again, and the message of the mismatch would hide why.
Result<DigestKey> local_key(const ImageStore::Options& options, bool has_catalog) {
  const auto path = options.folder / "domain.key";
  auto key = read_key_file(path);
  if (key || key.error().code() != Errc::kNotFound) return key;
  if (has_catalog || options.access != DirOrigin::Access::kWrite) {
    return fail(Errc::kInvalid, path.string() + " is missing; without it the store's images " +
                                    "cannot be verified. Put it back from a backup");
  }
  return create_key_file(path);
}

}  // namespace

ImageStore::ImageStore(std::string domain, const DomainKeys& keys,
                       std::unique_ptr<DirOrigin> origin, std::unique_ptr<PageIndex> pages,
                       std::unique_ptr<Catalog> catalog)
    : domain_(std::move(domain)),
      keys_(keys),
      origin_(std::move(origin)),
      pages_(std::move(pages)),
      catalog_(std::move(catalog)) {}

Result<std::unique_ptr<ImageStore>> ImageStore::open(const Options& options) {
  auto origin = TRY(DirOrigin::open({.folder = options.folder / "packs",
                                     .access = options.access,
                                     .pack_bytes_max = options.pack_bytes_max}));
  const auto catalog_path = options.folder / "catalog.db";
  std::error_code error;
  const bool has_catalog = std::filesystem::exists(catalog_path, error);
  const bool writable = options.access == DirOrigin::Access::kWrite;
  if (!has_catalog && !writable) {
    return fail(Errc::kNotFound, options.folder.string() + ": no image store is here");
  }
  const DigestKey key = options.domain ? options.domain->key : TRY(local_key(options, has_catalog));
  std::string domain = options.domain ? options.domain->name : "default";
  auto catalog = TRY(Catalog::open(catalog_path));
  auto pages = TRY(PageIndex::open(options.folder / "pages.db"));
  std::unique_ptr<ImageStore> store(new ImageStore(
      std::move(domain), DomainKeys(key), std::move(origin), std::move(pages), std::move(catalog)));
  TRY(store->catalog_->expect_domain(store->domain_, store->keys_.id));
  if (!writable) return store;
  TRY(store->catalog_->remember_domain(store->domain_, store->keys_.id));
  TRY(store->adopt_extents());
  return store;
}

/// Extents that the origin holds and the page index does not know: after a crash between the two
/// commits, or when the index was lost.
Result<void> ImageStore::adopt_extents() {
  const bool crashed = repairs().objects_adopted > 0;
  if (!crashed && TRY(pages_->extents()) > 0) return {};
  const auto adopt = [this](const ObjectName& name, std::uint64_t) -> Result<void> {
    if (TRY(pages_->knows_extent(name))) return {};
    const auto bytes = origin_->get(name);
    if (!bytes) return {};  // Damaged: verifying says so; its pages are imported again.
    const auto digests = decode_extent_digests(*bytes, keys_);
    if (!digests) return {};  // Not an extent, or not of this domain.
    return pages_->add(name, *digests);
  };
  TRY(origin_->list(adopt));
  return pages_->commit();
}

Result<void> ImageStore::commit() {
  TRY(origin_->sync());
  return pages_->commit();
}

Result<void> ImageStore::discard() {
  pages_->discard();
  return origin_->discard();
}

}  // namespace samepage::imagestore
