#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/page.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/extent.h"
#include "imagestore/object_format.h"

namespace samepage::imagestore {

/// Children of a node; a leaf's are pages (1 MiB of image), another's are nodes.
inline constexpr std::size_t kFanOut = 256;

/// The largest image: 1 PiB, five levels.
inline constexpr std::uint64_t kImageBytesMax = std::uint64_t{1} << 50U;
inline constexpr unsigned kHeightMax = 5;

/// A version's name: the digest of its VersionRecord.
using VersionId = ObjectName;

/// Pages of an image of `size_bytes`; the last one is filled up with zeros.
constexpr std::uint64_t pages_in(std::uint64_t size_bytes) {
  return (size_bytes + kPageSize - 1) / kPageSize;
}

/// Levels of the tree over an image of `size_bytes`: a function of the size alone, so that equal
/// images have equal trees.
unsigned height_of(std::uint64_t size_bytes);

/// A page of an image: what it is, and where to read it.
struct PageRef {
  PageDigest digest;
  PagePlace place;
};

/// One node of a manifest. Level 0 is a leaf.
///
/// A leaf says of each page what it is and where it lies, but only the digests are in the leaf's
/// name: equal images have equal names wherever their pages lie. The places are sealed with a
/// digest of their own, so that a damaged leaf is seen, and pages prove themselves.
class ManifestNode {
 public:
  explicit ManifestNode(unsigned level = 0)
      : level_(level), places_(level == 0 ? kFanOut : std::size_t{0}) {}

  unsigned level() const { return level_; }
  bool empty() const { return present_.none(); }

  /// A page's digest in a leaf, a node's name above.
  std::optional<PageDigest> child(std::size_t index) const {
    if (!present_[index]) return std::nullopt;
    return children_[index];
  }

  /// Of a leaf.
  std::optional<PageRef> page(std::size_t index) const {
    if (!present_[index]) return std::nullopt;
    return PageRef{.digest = children_[index], .place = places_[index]};
  }

  /// Of a node above the leaves.
  void set(std::size_t index, const std::optional<ObjectName>& child);

  /// Of a leaf.
  void set_page(std::size_t index, const std::optional<PageRef>& page);

  /// The extents that a leaf's pages lie in, each once, in the order of the pages.
  std::vector<ObjectName> extents() const;

  std::vector<std::byte> encode(const DomainKeys& keys) const;

  /// kCorrupt: not a node of `level`, not in its canonical form, or its seal is broken. kInvalid:
  /// of a newer format.
  static Result<ManifestNode> decode(std::span<const std::byte> bytes, const DomainKeys& keys,
                                     unsigned level);

 private:
  Result<void> parse_places(ByteReader& reader);
  void write_identity(ByteWriter& writer, const DomainKeys& keys) const;

  unsigned level_;
  std::bitset<kFanOut> present_;
  std::array<PageDigest, kFanOut> children_;
  std::vector<PagePlace> places_;  ///< kFanOut of them in a leaf, none above.
};

/// The name of an encoded node. kCorrupt: it is none.
Result<ObjectName> name_node(std::span<const std::byte> bytes, const DomainKeys& keys);

/// What a version's name is the digest of.
struct VersionRecord {
  std::uint64_t size_bytes = 0;
  std::optional<ObjectName> root;  ///< None when every page is zero.

  unsigned height() const { return height_of(size_bytes); }
};

std::vector<std::byte> encode(const VersionRecord& version, const DomainKeys& keys);

/// kCorrupt: not a version, or larger than kImageBytesMax.
Result<VersionRecord> decode_version(std::span<const std::byte> bytes, const DomainKeys& keys);

}  // namespace samepage::imagestore
