#include "imagestore/manifest_node.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <unordered_set>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kBitmapBytes = kFanOut / 8;

Result<PageDigest> read_digest(ByteReader& reader) {
  const auto bytes = TRY(reader.raw(sizeof(PageDigest::bytes)));
  PageDigest digest;
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

}  // namespace

unsigned height_of(std::uint64_t size_bytes) {
  CHECK(size_bytes <= kImageBytesMax);
  unsigned height = 1;
  while (pages_in(size_bytes) > std::uint64_t{1} << (8 * height)) ++height;
  return height;
}

void ManifestNode::set(std::size_t index, const std::optional<ObjectName>& child) {
  CHECK(level_ > 0);
  present_[index] = child.has_value();
  if (child) children_[index] = *child;
}

void ManifestNode::set_page(std::size_t index, const std::optional<PageRef>& page) {
  CHECK(level_ == 0);
  present_[index] = page.has_value();
  if (!page) return;
  CHECK(page->place.slot < kExtentPagesMax);
  children_[index] = page->digest;
  places_[index] = page->place;
}

std::vector<ObjectName> ManifestNode::extents() const {
  std::vector<ObjectName> extents;
  std::unordered_set<ObjectName> seen;
  for (std::size_t index = 0; index < places_.size(); ++index) {
    if (!present_[index]) continue;
    if (seen.insert(places_[index].extent).second) extents.push_back(places_[index].extent);
  }
  return extents;
}

void ManifestNode::write_identity(ByteWriter& writer, const DomainKeys& keys) const {
  write_header(writer, {.kind = ObjectKind::kNode, .key_id = keys.id});
  writer.u8(static_cast<std::uint8_t>(level_));
  for (std::size_t byte = 0; byte < kBitmapBytes; ++byte) {
    unsigned bits = 0;
    for (std::size_t bit = 0; bit < 8; ++bit) {
      if (present_[byte * 8 + bit]) bits |= 1U << bit;
    }
    writer.u8(static_cast<std::uint8_t>(bits));
  }
  for (std::size_t index = 0; index < kFanOut; ++index) {
    if (present_[index]) writer.raw(children_[index].bytes);
  }
}

std::vector<std::byte> ManifestNode::encode(const DomainKeys& keys) const {
  ByteWriter writer;
  write_identity(writer, keys);
  if (level_ > 0) return writer.take();
  const auto named = extents();
  std::unordered_map<ObjectName, std::size_t> number;
  for (const ObjectName& extent : named) number.emplace(extent, number.size());
  writer.varint(named.size());
  for (const ObjectName& extent : named) writer.raw(extent.bytes);
  for (std::size_t index = 0; index < kFanOut; ++index) {
    if (!present_[index]) continue;
    writer.u8(static_cast<std::uint8_t>(number.at(places_[index].extent)));
    writer.u8(static_cast<std::uint8_t>(places_[index].slot));
  }
  writer.raw(name_object(writer.view(), keys).bytes);
  return writer.take();
}

Result<void> ManifestNode::parse_places(ByteReader& reader) {
  const std::size_t count = TRY(reader.varint(present_.count()));
  std::vector<ObjectName> named;
  for (std::size_t i = 0; i < count; ++i) named.push_back(TRY(read_digest(reader)));
  std::size_t met = 0;
  for (std::size_t index = 0; index < kFanOut; ++index) {
    if (!present_[index]) continue;
    const std::size_t extent = TRY(reader.u8());
    const std::uint8_t slot = TRY(reader.u8());
    // Extents are numbered in the order in which pages name them.
    if (extent > met || extent >= count) return fail(Errc::kCorrupt, "a page of no extent");
    if (extent == met) ++met;
    if (slot >= kExtentPagesMax) return fail(Errc::kCorrupt, "a page beyond its extent");
    places_[index] = {.extent = named[extent], .slot = slot};
  }
  if (met != count) return fail(Errc::kCorrupt, "an extent of no page");
  return {};
}

Result<ManifestNode> ManifestNode::decode(std::span<const std::byte> bytes, const DomainKeys& keys,
                                          unsigned level) {
  ByteReader reader(bytes);
  TRY(expect_header(reader, {.kind = ObjectKind::kNode, .key_id = keys.id}));
  if (TRY(reader.u8()) != level) return fail(Errc::kCorrupt, "a node of another level");
  ManifestNode node(level);
  const auto bitmap = TRY(reader.raw(kBitmapBytes));
  for (std::size_t index = 0; index < kFanOut; ++index) {
    if ((std::to_integer<unsigned>(bitmap[index / 8]) >> (index % 8) & 1U) == 0) continue;
    node.children_[index] = TRY(read_digest(reader));
    node.present_.set(index);
  }
  if (node.empty()) return fail(Errc::kCorrupt, "a node without children");
  if (level == 0) {
    TRY(node.parse_places(reader));
    const auto sealed = bytes.first(bytes.size() - reader.remaining());
    const PageDigest seal = TRY(read_digest(reader));
    if (name_object(sealed, keys) != seal) return fail(Errc::kCorrupt, "a leaf's seal is broken");
  }
  if (!reader.at_end()) return fail(Errc::kCorrupt, "a node with bytes behind its end");
  return node;
}

Result<ObjectName> name_node(std::span<const std::byte> bytes, const DomainKeys& keys) {
  ByteReader reader(bytes);
  TRY(expect_header(reader, {.kind = ObjectKind::kNode, .key_id = keys.id}));
  const std::uint8_t level = TRY(reader.u8());
  if (level > 0) return name_object(bytes, keys);
  std::size_t children = 0;
  for (const std::byte byte : TRY(reader.raw(kBitmapBytes))) {
    children += static_cast<std::size_t>(std::popcount(std::to_integer<unsigned>(byte)));
  }
  TRY(reader.raw(children * sizeof(PageDigest)));
  return name_object(bytes.first(bytes.size() - reader.remaining()), keys);
}

std::vector<std::byte> encode(const VersionRecord& version, const DomainKeys& keys) {
  ByteWriter writer;
  write_header(writer, {.kind = ObjectKind::kVersion, .key_id = keys.id});
  writer.u64(version.size_bytes);
  writer.u8(version.root ? 1 : 0);
  if (version.root) writer.raw(version.root->bytes);
  return writer.take();
}

Result<VersionRecord> decode_version(std::span<const std::byte> bytes, const DomainKeys& keys) {
  ByteReader reader(bytes);
  TRY(expect_header(reader, {.kind = ObjectKind::kVersion, .key_id = keys.id}));
  VersionRecord version;
  version.size_bytes = TRY(reader.u64());
  if (version.size_bytes > kImageBytesMax) return fail(Errc::kCorrupt, "an image beyond 1 PiB");
  const std::uint8_t roots = TRY(reader.u8());
  if (roots > 1) return fail(Errc::kCorrupt, "a version with several roots");
  if (roots == 1) version.root = TRY(read_digest(reader));
  if (!reader.at_end()) return fail(Errc::kCorrupt, "a version with bytes behind its end");
  return version;
}

}  // namespace samepage::imagestore
