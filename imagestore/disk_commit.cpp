#include "imagestore/disk_commit.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fd.h"
#include "imagestore/manifest.h"

namespace samepage::imagestore {
namespace {

tl::unexpected<Error> io_error(const std::filesystem::path& path) {
  return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(errno));
}

/// Durable before the image's head moves.
Result<void> write_intent(const std::filesystem::path& path, const VersionId& version) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return io_error(path);
  const auto size = static_cast<ssize_t>(version.bytes.size());
  if (::write(fd.get(), version.bytes.data(), version.bytes.size()) != size) return io_error(path);
  if (::fsync(fd.get()) != 0) return io_error(path);
  const Fd folder(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return io_error(path.parent_path());
  return {};
}

/// None when there is none or it is torn, and then no head has moved.
std::optional<VersionId> read_intent(const std::filesystem::path& path) {
  VersionId version;
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  const auto size = static_cast<ssize_t>(version.bytes.size());
  if (::read(fd.get(), version.bytes.data(), version.bytes.size()) != size) return std::nullopt;
  return version;
}

std::optional<ImageVersion> find_version(const std::vector<ImageVersion>& versions,
                                         const VersionId& id) {
  const auto found = std::find_if(versions.begin(), versions.end(),
                                  [&](const ImageVersion& version) { return version.id == id; });
  if (found == versions.end()) return std::nullopt;
  return *found;
}

/// A new image whose first version is what the disk's last commit made, or its base: a clone, in
/// constant time.
Result<void> make_image(ImageStore& store, const VersionId& first, const DiskCommitOptions& options,
                        const Clock& clock) {
  ImageVersion version;
  version.id = first;
  version.size_bytes = TRY(Manifest::open(store.origin(), store.keys(), first)).size_bytes();
  version.source_format = "disk";
  if (!options.source_image.empty()) {
    const auto versions = TRY(store.catalog().versions(options.source_image));
    if (const auto found = find_version(versions, first)) version = *found;
  }
  version.number = 1;
  version.new_bytes = 0;
  version.stored_bytes = 0;
  version.imported_at = std::chrono::floor<std::chrono::seconds>(clock.today());
  TRY(keep_version(store, first));
  return store.catalog().add(options.image, store.sharing_domain(), version);
}

/// What the commit is made on: what the overlay says, or what a commit that was cut off made.
Result<VersionId> base_of(ImageStore& store, const Overlay& overlay,
                          const std::optional<VersionId>& intent,
                          const DiskCommitOptions& options) {
  const auto versions = TRY(store.catalog().versions(options.image));
  if (intent && find_version(versions, *intent)) return *intent;
  if (find_version(versions, overlay.committed())) return overlay.committed();
  return fail(Errc::kInvalid, "image " + options.image +
                                  " does not have the version that this disk stands on: commit to "
                                  "another name, which is made as a clone");
}

}  // namespace

Result<CommitReport> commit_overlay(Overlay& overlay, const std::filesystem::path& intent,
                                    ImageStore::Options store_options,
                                    const DiskCommitOptions& options) {
  TRY(check_image_name(options.image));
  const SystemClock clock;
  store_options.access = DirOrigin::Access::kWrite;
  const auto store = TRY(ImageStore::open(store_options));
  const auto image = store->find_image(options.image);
  if (!image && image.error().code() != Errc::kNotFound) return tl::unexpected(image.error());
  if (!image) TRY(make_image(*store, overlay.committed(), options, clock));

  CommitOptions commit_options;
  commit_options.image = options.image;
  commit_options.base = TRY(base_of(*store, overlay, read_intent(intent), options));
  // Before the next intent replaces the one that says so.
  if (commit_options.base != overlay.committed()) TRY(overlay.adopt_commit(commit_options.base));
  commit_options.size_bytes = overlay.root().size_bytes;
  commit_options.before_publish = [&](const VersionId& version) {
    return write_intent(intent, version);
  };
  const auto commit = TRY(Commit::begin(*store, commit_options));
  TRY(overlay.visit_frozen([&](const StateRun& run, std::span<const std::byte> bytes) {
    if (run.state == PageState::kZero) {
      return commit->put_zeros({.first = run.first, .count = run.count});
    }
    return commit->put(run.first, bytes);
  }));
  auto report = TRY(commit->finish(clock));
  TRY(overlay.finish_commit(report.version.id));
  std::error_code ignored;
  std::filesystem::remove(intent, ignored);
  return report;
}

}  // namespace samepage::imagestore
