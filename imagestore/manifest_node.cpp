#include "imagestore/manifest_node.h"

#include <algorithm>

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

std::vector<std::byte> ManifestNode::encode(const DomainKeys& keys) const {
  ByteWriter writer;
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
  return writer.take();
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
    node.set(index, TRY(read_digest(reader)));
  }
  if (!reader.at_end()) return fail(Errc::kCorrupt, "a node with bytes behind its last child");
  if (node.empty()) return fail(Errc::kCorrupt, "a node without children");
  return node;
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
