#include "imagestore/verifier.h"

#include <array>
#include <unordered_set>
#include <utility>

#include "core/byte_reader.h"
#include "imagestore/extent.h"
#include "imagestore/manifest.h"
#include "imagestore/page_reader.h"

namespace samepage::imagestore {
namespace {

class Verification {
 public:
  Verification(ImageStore& store, const VerifyOptions& options)
      : store_(store), options_(options), pages_(store) {}

  Result<VerifyReport> run();

 private:
  Result<void> check_image(const Image& image);
  Result<void> check_version(const std::string& what, const VersionId& version);
  Result<void> check_page(const std::string& what, std::uint64_t page, const PageRef& ref);
  Result<void> check_object(const StoredObject& object);
  Result<void> check_extent(const ObjectName& name, std::span<const std::byte> bytes);
  Result<void> tell_progress(std::uint64_t bytes);

  /// Notes damage and goes on; a disk that refuses ends the check.
  Result<void> note(const std::string& what, const Error& error);

  ImageStore& store_;
  const VerifyOptions& options_;
  PageReader pages_;
  VerifyReport report_;
  ImportProgress progress_;
  std::unordered_set<ObjectName> used_;  // Versions, nodes and extents that an image leads to.
};

Result<void> Verification::note(const std::string& what, const Error& error) {
  if (error.code() == Errc::kIo || error.code() == Errc::kUnavailable) {
    return tl::unexpected(error);
  }
  ++report_.problems;
  if (report_.descriptions.size() < options_.problems_max) {
    report_.descriptions.push_back(what + ": " + error.message());
  }
  return {};
}

Result<void> Verification::tell_progress(std::uint64_t bytes) {
  constexpr std::uint64_t kStepBytes = 16U << 20U;
  const std::uint64_t before = progress_.bytes_done;
  progress_.bytes_done += bytes;
  if (!options_.on_progress || before / kStepBytes == progress_.bytes_done / kStepBytes) return {};
  if (options_.on_progress(progress_)) return {};
  return fail(Errc::kUnavailable, "cancelled; the check is not complete");
}

Result<VerifyReport> Verification::run() {
  std::vector<Image> images;
  if (options_.image.empty()) {
    images = TRY(store_.catalog().list());
  } else {
    images.push_back(TRY(store_.catalog().find(options_.image)));
  }
  for (const Image& image : images) progress_.bytes_total += image.head.data_bytes;
  const bool objects_too = options_.image.empty();
  if (objects_too) {
    const auto add = [this](const StoredObject& object) -> Result<void> {
      progress_.bytes_total += object.stored_bytes;
      return {};
    };
    TRY(store_.origin().list(add));
  }
  for (const Image& image : images) TRY(check_image(image));
  if (objects_too) {
    const auto check = [this](const StoredObject& object) { return check_object(object); };
    TRY(store_.origin().list(check));
  }
  return report_;
}

Result<void> Verification::check_image(const Image& image) {
  if (image.sharing_domain != store_.sharing_domain()) {
    ++report_.images_unchecked;
    return {};
  }
  ++report_.images;
  const auto versions = TRY(store_.catalog().versions(image.name));
  for (std::size_t i = 0; i < versions.size(); ++i) {
    ++report_.versions;
    const std::string what =
        "image " + image.name +
        (versions.size() > 1 ? " version " + std::to_string(i + 1) : std::string());
    TRY(check_version(what, versions[i].id));
  }
  return {};
}

Result<void> Verification::check_version(const std::string& what, const VersionId& version) {
  used_.insert(version);
  auto manifest = Manifest::open(store_.origin(), store_.keys(), version);
  if (!manifest) return note(what, manifest.error());
  // Versions share nodes: what lies below one was checked with the first image that has it.
  const auto enter = [this](const ObjectName& node) {
    const bool first = used_.insert(node).second;
    if (first) ++report_.nodes;
    return first;
  };
  const auto visit = [&](std::uint64_t page, const PageRef& ref) {
    return check_page(what, page, ref);
  };
  const auto walked = manifest->walk(enter, visit);
  if (!walked) return note(what, walked.error());
  return {};
}

Result<void> Verification::check_page(const std::string& what, std::uint64_t page,
                                      const PageRef& ref) {
  ++report_.pages;
  TRY(tell_progress(kPageSize));
  used_.insert(ref.place.extent);
  std::array<std::byte, kPageSize> bytes;
  const auto read = pages_.read(ref, bytes);
  if (!read) return note(what + ", page " + std::to_string(page), read.error());
  return {};
}

Result<void> Verification::check_object(const StoredObject& object) {
  const auto& [name, stored_bytes, buried_at] = object;
  ++report_.objects;
  report_.object_bytes += stored_bytes;
  TRY(tell_progress(stored_bytes));
  const std::string what = "object " + to_hex(name);
  const auto bytes = store_.origin().get(name);
  if (!bytes) return note(what, bytes.error());
  ByteReader reader(*bytes);
  const auto header = read_header(reader);
  if (!header) return note(what, header.error());
  if (header->key_id != store_.keys().id) {
    ++report_.objects_unchecked;
    return {};
  }
  if (!used_.contains(name)) {
    ++report_.reclaimable_objects;
    report_.reclaimable_bytes += stored_bytes;
  }
  if (header->kind == ObjectKind::kExtent) {
    const auto checked = check_extent(name, *bytes);
    return checked ? Result<void>() : note(what, checked.error());
  }
  const bool is_node = header->kind == ObjectKind::kNode;
  const auto named = is_node ? name_node(*bytes, store_.keys())
                             : Result<ObjectName>(name_object(*bytes, store_.keys()));
  if (named && *named == name) return {};
  return note(what, Error(Errc::kCorrupt,
                          "does not match its digest (" + store_.origin().place(name) + ")"));
}

Result<void> Verification::check_extent(const ObjectName& name, std::span<const std::byte> bytes) {
  const Extent extent = TRY(decode_extent(bytes, store_.keys()));
  if (extent_name(extent.digests, store_.keys()) != name) {
    return fail(Errc::kCorrupt, "its pages are not those of its name");
  }
  for (std::size_t slot = 0; slot < extent.digests.size(); ++slot) {
    ++report_.stored_pages;
    if (digest_page(extent.page(slot), store_.keys().pages) != extent.digests[slot]) {
      return fail(Errc::kCorrupt, "page " + std::to_string(slot) + " does not match its digest (" +
                                      store_.origin().place(name) + ")");
    }
  }
  return {};
}

}  // namespace

Result<VerifyReport> verify_store(ImageStore& store, const VerifyOptions& options) {
  return Verification(store, options).run();
}

}  // namespace samepage::imagestore
