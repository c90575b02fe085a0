#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/result.h"
#include "core/sharing_domain.h"
#include "imagestore/catalog.h"
#include "imagestore/dir_origin.h"
#include "imagestore/object_format.h"
#include "imagestore/origin.h"
#include "imagestore/page_index.h"

namespace samepage::imagestore {

/// One folder of images: objects in an origin, the index of their pages, the catalog of names, and
/// the key of the sharing domain that it is used for.
///
/// Invariant: what the catalog names is durable in the origin and found by the page index.
/// Threads: one at a time; a thread of its own opens a store of its own, for reading.
class ImageStore final {
 public:
  struct Options {
    std::filesystem::path folder = "/var/lib/samepage/store";
    DirOrigin::Access access = DirOrigin::Access::kRead;
    /// None: the domain `default`, with a key that is made at first use and kept in the folder,
    /// readable by its owner only.
    std::optional<SharingDomain> domain = {};
    std::uint64_t pack_bytes_max = 256U << 20U;
  };

  /// Opening for writing creates what is missing and mends what a crash left.
  /// kNotFound: opened for reading and no store is there. kUnavailable: another process is writing.
  /// kInvalid: the store knows the domain by another key, or was written by a newer release.
  static Result<std::unique_ptr<ImageStore>> open(const Options& options);

  Origin& origin() { return *origin_; }
  PageIndex& pages() { return *pages_; }
  Catalog& catalog() { return *catalog_; }
  const DomainKeys& keys() const { return keys_; }
  const std::string& sharing_domain() const { return domain_; }
  const DirOrigin::Repairs& repairs() const { return origin_->repairs(); }

  /// Makes objects and pages put so far durable, in the order that the invariant needs.
  Result<void> commit();

  /// Takes back everything since the last commit().
  Result<void> discard();

 private:
  ImageStore(std::string domain, const DomainKeys& keys, std::unique_ptr<DirOrigin> origin,
             std::unique_ptr<PageIndex> pages, std::unique_ptr<Catalog> catalog);
  Result<void> adopt_extents();

  std::string domain_;
  DomainKeys keys_;
  std::unique_ptr<DirOrigin> origin_;
  std::unique_ptr<PageIndex> pages_;
  std::unique_ptr<Catalog> catalog_;
};

}  // namespace samepage::imagestore
