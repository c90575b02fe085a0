#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/database.h"
#include "core/result.h"
#include "imagestore/manifest_node.h"

namespace samepage::imagestore {

inline constexpr std::size_t kImageNameMax = 128;
inline constexpr std::size_t kHolderMax = 256;

/// One version of an image: what came in, and what it cost.
struct ImageVersion {
  VersionId id;
  std::uint64_t size_bytes = 0;    ///< As the guest sees it.
  std::uint64_t data_bytes = 0;    ///< Of pages that are not zero.
  std::uint64_t new_bytes = 0;     ///< Of pages that the store did not hold yet.
  std::uint64_t stored_bytes = 0;  ///< What the new pages and nodes take, compressed.
  std::string source_format;       ///< "raw", "qcow2", ..., or "commit".
  std::chrono::sys_seconds imported_at;
  std::uint64_t number = 1;  ///< Within the image, from 1 on; never used again.
};

struct Image {
  std::string name;
  std::string sharing_domain;
  std::uint64_t versions = 0;
  ImageVersion head;  ///< The newest version.
};

/// How long something is held.
struct Lease {
  std::chrono::sys_seconds from;
  std::chrono::seconds lasts{0};
};

/// Names: images, their versions and heads, who holds versions, and which sharing domain's key an
/// image needs.
///
/// Invariant: an image becomes visible with its first version, or not at all; a version is named
/// only after all that it consists of is durable (the caller's order: origin, page index, catalog).
/// What is named is durable when the naming method returns.
/// Threads: one at a time; open a catalog per thread; any number of them write, in any process.
/// The catalogs of one process share a connection, and what they want at once is one transaction.
/// Errors besides the documented: the database's (core/database.h).
class Catalog final {
 public:
  /// Where the catalog lies: a path, or an SQLite file on another file system.
  static Result<std::unique_ptr<Catalog>> open(const Database::Options& options);

  ~Catalog();
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  /// kInvalid: the store knows this sharing domain by another key. A domain that it does not know
  /// is no error.
  Result<void> expect_domain(std::string_view domain, std::uint64_t key_id);

  /// Remembers by which key a domain is known; does nothing when it is known.
  Result<void> remember_domain(std::string_view domain, std::uint64_t key_id);

  /// Adds an image with one version. kInvalid: the name is taken or not a name.
  Result<void> add(std::string_view name, std::string_view sharing_domain,
                   const ImageVersion& version);

  /// Moves the head from version `head` on to a new version, which gets the next number; none when
  /// the head is another by now. kNotFound: no such image.
  Result<std::optional<std::uint64_t>> advance(std::string_view name, std::uint64_t head,
                                               const ImageVersion& version);

  /// kNotFound: no such image.
  Result<Image> find(std::string_view name);

  /// Every image, by name.
  Result<std::vector<Image>> list();

  /// Every version of an image, oldest first; empty when there is no such image.
  Result<std::vector<ImageVersion>> versions(std::string_view name);

  /// kNotFound: no such image, or no version of that number; 0 stands for the head.
  Result<ImageVersion> version(std::string_view name, std::uint64_t number);

  /// Removes an image with all versions. kNotFound: no such image. kUnavailable: one of them is
  /// held; the message says by whom.
  Result<void> remove(std::string_view name, std::chrono::sys_seconds now);

  /// Removes one version. kNotFound: no such version. kInvalid: it is the head. kUnavailable: held.
  Result<void> remove_version(std::string_view name, std::uint64_t number,
                              std::chrono::sys_seconds now);

  /// Keeps a version from being removed and its content from being swept for as long as the lease
  /// lasts, for the disk of a VM that stands on it. A holder has one hold on a version: the last
  /// call counts. kNotFound: no image has such a version, and nobody holds it (any more).
  Result<void> hold(const VersionId& version, std::string_view holder, const Lease& lease);
  Result<void> release(const VersionId& version, std::string_view holder);

  /// Who holds a version at `now`, by name.
  Result<std::vector<std::string>> holders(const VersionId& version, std::chrono::sys_seconds now);

  /// Keeps a version's boot trace (imagestore/boot_trace.h), of `pages` pages, unless one that is
  /// as long is there. Traces go with the last version of their name.
  Result<void> put_trace(const VersionId& version, std::uint64_t pages,
                         std::span<const std::byte> body);

  /// A version's trace, if there is one of more than `pages_above` pages.
  Result<std::optional<std::vector<std::byte>>> trace(const VersionId& version,
                                                      std::uint64_t pages_above);

  /// Versions that have a trace, those of `image` first, the newest of each first; a few.
  Result<std::vector<VersionId>> traced_versions(std::string_view image);

  /// Every version that an image has or that is held at `now`, each once.
  Result<std::vector<VersionId>> roots(std::chrono::sys_seconds now);

 private:
  class Impl;
  class Connection;
  struct Tables;
  explicit Catalog(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

/// kInvalid: not 1 to kImageNameMax of A-Z a-z 0-9 . _ - with a letter or digit first.
Result<void> check_image_name(std::string_view name);

}  // namespace samepage::imagestore
