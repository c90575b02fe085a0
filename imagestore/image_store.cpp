#include "imagestore/image_store.h"

#include <system_error>
#include <utility>
#include <vector>

#include "imagestore/domain_key.h"
#include "imagestore/extent.h"
#include "imagestore/manifest.h"
#include "imagestore/rados_origin.h"
#include "imagestore/rados_pool.h"

namespace samepage::imagestore {
namespace {

constexpr std::string_view kRados = "rados:";
constexpr std::string_view kNameSpace = "samepage";

/// An origin with the catalog that lies beside it.
struct OpenedOrigin {
  std::unique_ptr<Origin> origin;
  DirOrigin::Repairs repairs;
  Database::Options catalog;
  bool has_catalog = false;
};

Result<OpenedOrigin> open_folder(const ImageStore::Options& options) {
  auto origin = TRY(DirOrigin::open({.folder = options.folder / "packs",
                                     .access = options.access,
                                     .pack_bytes_max = options.pack_bytes_max}));
  OpenedOrigin opened;
  opened.repairs = origin->repairs();
  opened.origin = std::move(origin);
  const auto catalog = options.folder / "catalog.db";
  std::error_code error;
  opened.has_catalog = std::filesystem::exists(catalog, error);
  opened.catalog = {.path = catalog, .synchronous_full = false};
  return opened;
}

/// `place` is POOL or POOL/NAMESPACE.
Result<OpenedOrigin> open_pool(const ImageStore::Options& options, std::string_view place) {
  const auto slash = place.find('/');
  const std::string pool(place.substr(0, slash));
  const std::string name_space(slash == place.npos ? kNameSpace : place.substr(slash + 1));
  if (pool.empty() || name_space.empty()) {
    return fail(Errc::kInvalid, "\"" + options.origin + "\" names no pool; say rados:POOL");
  }
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error) return fail(Errc::kIo, "create " + options.folder.string() + ": " + error.message());
  OpenedOrigin opened;
  opened.origin = TRY(RadosOrigin::open({.pool = pool,
                                         .name_space = name_space,
                                         .conf = options.ceph_conf,
                                         .access = options.access}));
  const auto objects =
      TRY(RadosPool::open({.conf = options.ceph_conf, .pool = pool, .name_space = name_space}));
  // As libcephsqlite calls a file's first piece.
  opened.has_catalog = objects->size("catalog.db.0000000000000000").has_value();
  opened.catalog = {.path = "file:///" + pool + ":" + name_space + "/catalog.db?vfs=ceph",
                    .vfs = "ceph",
                    .busy_timeout = std::chrono::seconds(30)};
  return opened;
}

Result<OpenedOrigin> open_origin(const ImageStore::Options& options) {
  if (options.origin == "dir:") return open_folder(options);
  if (options.origin.starts_with(kRados)) {
    return open_pool(options, std::string_view(options.origin).substr(kRados.size()));
  }
  return fail(Errc::kInvalid, "\"" + options.origin + "\" is no origin; there are dir: and " +
                                  "rados:POOL[/NAMESPACE]");
}

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

ImageStore::ImageStore(std::string domain, const DomainKeys& keys, std::unique_ptr<Origin> origin,
                       std::unique_ptr<PageIndex> pages, std::unique_ptr<Catalog> catalog)
    : domain_(std::move(domain)),
      keys_(keys),
      origin_(std::move(origin)),
      pages_(std::move(pages)),
      catalog_(std::move(catalog)) {}

Result<std::unique_ptr<ImageStore>> ImageStore::open(const Options& options) {
  OpenedOrigin opened = TRY(open_origin(options));
  const bool writable = options.access == DirOrigin::Access::kWrite;
  if (!opened.has_catalog && !writable) {
    return fail(Errc::kNotFound,
                (options.origin == "dir:" ? options.folder.string() : options.origin) +
                    ": no image store is here");
  }
  const DigestKey key =
      options.domain ? options.domain->key : TRY(local_key(options, opened.has_catalog));
  std::string domain = options.domain ? options.domain->name : "default";
  auto catalog = TRY(Catalog::open(opened.catalog));
  auto pages = TRY(PageIndex::open(options.folder / "pages.db"));
  std::unique_ptr<ImageStore> store(new ImageStore(std::move(domain), DomainKeys(key),
                                                   std::move(opened.origin), std::move(pages),
                                                   std::move(catalog)));
  store->repairs_ = opened.repairs;
  TRY(store->catalog_->expect_domain(store->domain_, store->keys_.id));
  if (!writable) return store;
  TRY(store->catalog_->remember_domain(store->domain_, store->keys_.id));
  TRY(store->adopt_extents());
  return store;
}

/// Extents that the origin holds and the page index does not know: after a crash between the two
/// commits, or when the index was lost.
Result<void> ImageStore::adopt_extents() {
  constexpr std::uint64_t kBatchMax = 2048;
  const bool crashed = repairs().objects_adopted > 0;
  if (!crashed && TRY(pages_->extents()) > 0) return {};
  std::uint64_t added = 0;
  const auto adopt = [&](const StoredObject& object) -> Result<void> {
    if (object.buried_at || TRY(pages_->knows_extent(object.name))) return {};
    const auto bytes = origin_->get(object.name);
    if (!bytes) return {};  // Damaged: verifying says so; its pages are imported again.
    const auto digests = decode_extent_digests(*bytes, keys_);
    if (!digests) return {};  // Not an extent, or not of this domain.
    pages_->add(object.name, *digests);
    return ++added % kBatchMax == 0 ? pages_->commit() : Result<void>();
  };
  TRY(origin_->list(adopt));
  return pages_->commit();
}

Result<Image> ImageStore::find_image(std::string_view name) {
  Image image = TRY(catalog_->find(name));
  if (image.sharing_domain == domain_) return image;
  return fail(Errc::kInvalid, "image " + image.name + " belongs to sharing domain " +
                                  image.sharing_domain + ", not " + domain_);
}

Result<void> ImageStore::rely_on(const ObjectName& extent) {
  if (!relied_on_.insert(extent).second) return {};
  return origin_->keep(extent);
}

Result<void> ImageStore::commit() {
  auto synced = origin_->sync();
  if (!synced) {
    if (synced.error().code() == Errc::kUnavailable) TRY(forget_swept());
    return synced;
  }
  relied_on_.clear();
  return pages_->commit();
}

Result<void> ImageStore::forget_swept() {
  std::vector<ObjectName> swept;
  for (const ObjectName& extent : relied_on_) {
    if (!TRY(origin_->contains(extent))) swept.push_back(extent);
  }
  return pages_->forget(swept);
}

Result<void> keep_version(ImageStore& store, const VersionId& version) {
  TRY(store.origin().keep(version));
  Manifest manifest = TRY(Manifest::open(store.origin(), store.keys(), version));
  Result<void> kept;
  const auto enter = [&](const ObjectName& node) {
    if (kept) kept = store.origin().keep(node);
    return true;
  };
  TRY(manifest.walk(
      enter, [&](std::uint64_t, const PageRef& ref) { return store.rely_on(ref.place.extent); }));
  TRY(std::move(kept));
  return store.commit();
}

Result<void> ImageStore::discard() {
  relied_on_.clear();
  pages_->discard();
  return origin_->discard();
}

}  // namespace samepage::imagestore
