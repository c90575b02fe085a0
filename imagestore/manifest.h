#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/manifest_node.h"
#include "imagestore/object_format.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// One version of an image, for reading: page number -> PageRef, none for a page of zeros.
///
/// A persistent radix tree with 256 children a node. A node is an object of the origin, named by
/// the digest of its bytes, so versions share every subtree in which they agree, and the version's
/// own name, digest of the image's size and the root, proves all of it.
///
/// Invariant: every node is digested before it is believed.
/// Threads: one at a time. Lifetime: borrows the origin. Copyable; copies share nothing.
/// Errors: kCorrupt: a node is damaged or missing; the message names it and its place.
class Manifest {
 public:
  /// kNotFound: the origin has no such version.
  static Result<Manifest> open(Origin& origin, const DomainKeys& keys, const VersionId& version);

  std::uint64_t size_bytes() const { return version_.size_bytes; }
  std::uint64_t pages() const { return pages_in(version_.size_bytes); }

  /// None for a page of zeros. `page` below pages(). Neighbours are found without reading the
  /// origin again.
  Result<std::optional<PageRef>> find(std::uint64_t page);

  /// Decides about a node, by name, before walk() reads it: false skips it and what is below.
  using Enter = std::function<bool(const ObjectName& node)>;
  using Visit = std::function<Result<void>(std::uint64_t page, const PageRef& ref)>;

  /// Visits every page that is not zero, in ascending order, until `visit` fails.
  Result<void> walk(const Enter& enter, const Visit& visit);

  /// A page that two versions do not have in common; none stands for zeros, or for a page beyond
  /// the end.
  using VisitChange =
      std::function<Result<void>(std::uint64_t page, const std::optional<PageRef>& before,
                                 const std::optional<PageRef>& after)>;

  /// Visits every page whose content differs, in ascending order, until `visit` fails. Costs what
  /// differs: subtrees that both share are not read.
  static Result<void> diff(Manifest& before, Manifest& after, const VisitChange& visit);

 private:
  friend class ManifestBuilder;

  struct Step {
    std::optional<ObjectName> name;
    ManifestNode node;
  };

  Manifest(Origin& origin, const DomainKeys& keys, const VersionRecord& version)
      : origin_(&origin), keys_(keys), version_(version), path_(version.height()) {}

  Result<ManifestNode> read_node(const ObjectName& name, unsigned level);
  Result<const ManifestNode*> remembered_node(const ObjectName& name, unsigned level);

  Result<void> visit_leaf(const ManifestNode& leaf, std::uint64_t first_page,
                          const Visit& visit) const;

  /// The children of node `number` of `level`, as if the tree had that height at least; an empty
  /// node when all of its pages are zero.
  Result<ManifestNode> node_at(unsigned level, std::uint64_t number);
  static Result<void> diff_below(Manifest& before, Manifest& after, unsigned level,
                                 std::uint64_t number, const VisitChange& visit);
  static Result<void> diff_leaves(const ManifestNode& before, const ManifestNode& after,
                                  std::uint64_t first_page, const VisitChange& visit);

  /// The node number `number` of `level`, none when all of its pages are zero.
  Result<std::optional<ObjectName>> find_node(unsigned level, std::uint64_t number);

  Origin* origin_;
  DomainKeys keys_;
  VersionRecord version_;
  std::vector<Step> path_;  ///< By level, leaf first: the node that was read last.
};

/// Builds a version from pages in ascending order, alone or on top of a base version, and stores
/// only nodes that the origin has not. Memory: one node per level.
/// Threads: one at a time. Lifetime: borrows the origin, which the caller syncs.
class ManifestBuilder {
 public:
  ManifestBuilder(Origin& origin, const DomainKeys& keys, std::uint64_t size_bytes);

  /// Everything that is not set() is the base's. kInvalid: `size_bytes` is below the base's: an
  /// image does not shrink.
  static Result<ManifestBuilder> on_top_of(const Manifest& base, std::uint64_t size_bytes);

  /// Names the content of `page`; none for a page of zeros. Pages come in ascending order and lie
  /// below the size. Errors are the origin's.
  Result<void> set(std::uint64_t page, const std::optional<PageRef>& ref);

  /// Stores what is left and returns the version. The builder is used up.
  Result<VersionId> finish();

  /// Of the nodes put so far.
  std::uint64_t stored_bytes() const { return stored_bytes_; }

 private:
  struct OpenNode {
    std::uint64_t number = 0;  ///< Which one of its level.
    ManifestNode node;
  };

  Result<void> enter(std::uint64_t page);
  Result<void> close(unsigned level);
  Result<void> rely_on_leaf(const ObjectName& name);

  Origin* origin_;
  DomainKeys keys_;
  VersionRecord version_;
  std::optional<Manifest> base_;
  std::vector<std::optional<OpenNode>> open_;  ///< By level, leaf first.
  std::uint64_t next_page_ = 0;
  std::uint64_t stored_bytes_ = 0;
};

}  // namespace samepage::imagestore
