#include "imagestore/object_format.h"

#include <cstring>
#include <string_view>

namespace samepage::imagestore {
namespace {

constexpr std::uint8_t kFormat = 2;

PageDigest derive(const DigestKey& key, std::string_view purpose) {
  StreamMac mac(key);
  mac.update(std::as_bytes(std::span(purpose)));
  return mac.current();
}

}  // namespace

DomainKeys::DomainKeys(const DigestKey& key) : pages(key) {
  objects.bytes = derive(key, "samepage imagestore object names").bytes;
  const PageDigest check = derive(key, "samepage imagestore key id");
  ByteReader reader(check.bytes);
  id = *reader.u64();
}

void write_header(ByteWriter& writer, const ObjectHeader& header) {
  writer.u8(static_cast<std::uint8_t>(header.kind));
  writer.u8(kFormat);
  writer.u64(header.key_id);
}

Result<ObjectHeader> read_header(ByteReader& reader) {
  const auto kind = static_cast<ObjectKind>(TRY(reader.u8()));
  const std::uint8_t format = TRY(reader.u8());
  const std::uint64_t key_id = TRY(reader.u64());
  switch (kind) {
    case ObjectKind::kExtent:
    case ObjectKind::kNode:
    case ObjectKind::kVersion:
      break;
    default:
      return fail(Errc::kCorrupt, "not an object of an image store");
  }
  if (format != kFormat) {
    return fail(Errc::kInvalid, "written by another release: object format " +
                                    std::to_string(format) + ", this one reads " +
                                    std::to_string(kFormat));
  }
  return ObjectHeader{.kind = kind, .key_id = key_id};
}

bool leads_to_others(std::span<const std::byte> object) {
  ByteReader reader(object);
  const auto header = read_header(reader);
  return header && header->kind != ObjectKind::kExtent;
}

Result<void> expect_header(ByteReader& reader, const ObjectHeader& expected) {
  const ObjectHeader header = TRY(read_header(reader));
  if (header.kind != expected.kind) return fail(Errc::kCorrupt, "an object of another kind");
  if (header.key_id != expected.key_id) {
    return fail(Errc::kCorrupt, "an object of another sharing domain");
  }
  return {};
}

ObjectName name_object(std::span<const std::byte> bytes, const DomainKeys& keys) {
  StreamMac mac(keys.objects);
  mac.update(bytes);
  return mac.current();
}

}  // namespace samepage::imagestore
