#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "imagestore/manifest_node.h"

namespace samepage::imagestore {

inline constexpr std::size_t kImageNameMax = 128;

/// One version of an image: what came in, and what it cost.
struct ImageVersion {
  VersionId id;
  std::uint64_t size_bytes = 0;    ///< As the guest sees it.
  std::uint64_t data_bytes = 0;    ///< Of pages that are not zero.
  std::uint64_t new_bytes = 0;     ///< Of pages that the store did not hold yet.
  std::uint64_t stored_bytes = 0;  ///< What the new pages and nodes take, compressed.
  std::string source_format;       ///< "raw", "qcow2", ...
  std::chrono::sys_seconds imported_at;
};

struct Image {
  std::string name;
  std::string sharing_domain;
  std::uint64_t versions = 0;
  ImageVersion head;  ///< The newest version.
};

/// Names: images, their versions and heads, and which sharing domain's key they need.
///
/// Invariant: an image becomes visible with its first version, or not at all; a version is named
/// only after all that it consists of is durable (the caller's order: origin, page index, catalog).
/// Threads: one at a time; open a catalog per thread.
/// Errors besides the documented: the database's (core/database.h).
class Catalog final {
 public:
  static Result<std::unique_ptr<Catalog>> open(const std::string& path);

  ~Catalog();
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  /// kInvalid: the store knows this sharing domain by another key. A domain that it does not know
  /// is no error.
  Result<void> expect_domain(std::string_view domain, std::uint64_t key_id);

  /// Remembers by which key a domain is known; does nothing when it is known.
  Result<void> remember_domain(std::string_view domain, std::uint64_t key_id);

  /// Adds an image with one version, durably. kInvalid: the name is taken or not a name.
  Result<void> add(std::string_view name, std::string_view sharing_domain,
                   const ImageVersion& version);

  /// kNotFound: no such image.
  Result<Image> find(std::string_view name);

  /// Every image, by name.
  Result<std::vector<Image>> list();

  /// Every version of an image, oldest first; empty when there is no such image.
  Result<std::vector<ImageVersion>> versions(std::string_view name);

 private:
  class Impl;
  explicit Catalog(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

/// kInvalid: not 1 to kImageNameMax of A-Z a-z 0-9 . _ - with a letter or digit first.
Result<void> check_image_name(std::string_view name);

}  // namespace samepage::imagestore
