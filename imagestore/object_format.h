#pragma once

#include <cstdint>
#include <span>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// The keys of one sharing domain, as the store uses them. Objects are named under a key of their
/// own, so that no page that a guest writes can have the name of an object.
struct DomainKeys {
  explicit DomainKeys(const DigestKey& key);

  DigestKey pages;       ///< Digests of pages: the domain's key itself.
  DigestKey objects;     ///< Names of objects: derived from it.
  std::uint64_t id = 0;  ///< Says which domain's key an object needs, and tells nothing about it.
};

enum class ObjectKind : std::uint8_t { kExtent = 'E', kNode = 'N', kVersion = 'V' };

/// What every object begins with.
struct ObjectHeader {
  ObjectKind kind = ObjectKind::kExtent;
  std::uint64_t key_id = 0;
};

inline constexpr std::size_t kObjectHeaderBytes = 10;

void write_header(ByteWriter& writer, const ObjectHeader& header);

/// kCorrupt: no object of ours. kInvalid: of a newer format.
Result<ObjectHeader> read_header(ByteReader& reader);

/// Whether an object of ours names others: a node or a version. False for bytes that are no object.
bool leads_to_others(std::span<const std::byte> object);

/// kCorrupt: an object of another kind, or named under another domain's key.
Result<void> expect_header(ByteReader& reader, const ObjectHeader& expected);

/// The name of a node or version: the digest of all its bytes.
ObjectName name_object(std::span<const std::byte> bytes, const DomainKeys& keys);

}  // namespace samepage::imagestore
