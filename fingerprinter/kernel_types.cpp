#include "fingerprinter/kernel_types.h"

#include <algorithm>
#include <cstring>

#include "core/byte_reader.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint32_t kMagicVersionFlags = 0x0001'eB9F;
constexpr std::size_t kBytesMax = 64U << 20U;
constexpr std::uint32_t kBitsMask = 0xff'ffff;  // Of a member's offset where bit fields have sizes.
constexpr unsigned kDepthMax = 16;
constexpr std::size_t kLooksMax = 100'000;  // Members may be of types that hold each other.

enum Kind : std::uint32_t {
  kInt = 1,
  kPointer = 2,
  kArray = 3,
  kStruct = 4,
  kUnion = 5,
  kEnum = 6,
  kForward = 7,
  kTypedef = 8,
  kVolatile = 9,
  kConst = 10,
  kRestrict = 11,
  kFunction = 12,
  kPrototype = 13,
  kVariable = 14,
  kSection = 15,
  kFloat = 16,
  kDeclarationTag = 17,
  kTypeTag = 18,
  kEnum64 = 19,
};

std::uint32_t kind_of(std::uint32_t info) {
  return info >> 24U & 0x1fU;
}

std::uint32_t count_of(std::uint32_t info) {
  return info & 0xffffU;
}

/// Bytes that follow the three words of a type; none for an unknown kind.
std::optional<std::size_t> detail_bytes(std::uint32_t info) {
  switch (kind_of(info)) {
    case kPointer:
    case kForward:
    case kTypedef:
    case kVolatile:
    case kConst:
    case kRestrict:
    case kFunction:
    case kFloat:
    case kTypeTag:
      return 0;
    case kInt:
    case kVariable:
    case kDeclarationTag:
      return 4;
    case kArray:
      return 12;
    case kEnum:
    case kPrototype:
      return 8UL * count_of(info);
    case kStruct:
    case kUnion:
    case kSection:
    case kEnum64:
      return 12UL * count_of(info);
    default:
      return std::nullopt;
  }
}

bool is_alias(std::uint32_t kind) {
  return kind == kTypedef || kind == kVolatile || kind == kConst || kind == kRestrict ||
         kind == kTypeTag;
}

}  // namespace

bool KernelTypes::looks_like(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) return false;
  ByteReader reader(bytes);
  return reader.u32() == kMagicVersionFlags && reader.u32() == kHeaderBytes;
}

Result<KernelTypes> KernelTypes::parse(std::span<const std::byte> bytes) {
  if (!looks_like(bytes)) return fail(Errc::kCorrupt, "no BTF");
  ByteReader reader(bytes.subspan(8));
  const std::size_t types_at = TRY(reader.u32());
  const std::size_t types_size = TRY(reader.u32());
  const std::size_t strings_at = TRY(reader.u32());
  const std::size_t strings_size = TRY(reader.u32());
  const std::span<const std::byte> body = bytes.subspan(kHeaderBytes);
  if (types_at + types_size > std::min(body.size(), kBytesMax) ||
      strings_at + strings_size > std::min(body.size(), kBytesMax)) {
    return fail(Errc::kCorrupt, "BTF that ends too early");
  }
  KernelTypes types;
  types.type_bytes_ = body.subspan(types_at, types_size);
  types.strings_ = body.subspan(strings_at, strings_size);
  TRY(types.read_types());
  return types;
}

Result<void> KernelTypes::read_types() {
  for (std::size_t at = 0; at < type_bytes_.size();) {
    ByteReader reader(type_bytes_.subspan(at));
    Type type;
    type.name = TRY(reader.u32());
    type.info = TRY(reader.u32());
    type.size_or_type = TRY(reader.u32());
    const auto details = detail_bytes(type.info);
    if (!details) return fail(Errc::kCorrupt, "a kind of BTF type that is not known");
    TRY(reader.raw(*details));
    type.details = static_cast<std::uint32_t>(at + 12);
    types_.push_back(type);
    at += 12 + *details;
  }
  return {};
}

std::string_view KernelTypes::text(std::uint32_t offset) const {
  if (offset >= strings_.size()) return {};
  const std::string_view rest(reinterpret_cast<const char*>(strings_.data()) + offset,
                              strings_.size() - offset);
  return rest.substr(0, rest.find('\0'));
}

std::uint32_t KernelTypes::word(std::size_t offset) const {
  std::uint32_t value = 0;
  std::memcpy(&value, type_bytes_.data() + offset, sizeof value);
  return value;
}

const KernelTypes::Type* KernelTypes::find(std::uint32_t kind, std::string_view name) const {
  const auto found = std::ranges::find_if(types_, [&](const Type& type) {
    return kind_of(type.info) == kind && text(type.name) == name;
  });
  return found == types_.end() ? nullptr : &*found;
}

const KernelTypes::Type* KernelTypes::behind_aliases(std::uint32_t id) const {
  for (unsigned depth = 0; depth < kDepthMax; ++depth) {
    if (id == 0 || id > types_.size()) return nullptr;
    const Type& type = types_[id - 1];
    if (!is_alias(kind_of(type.info))) return &type;
    id = type.size_or_type;
  }
  return nullptr;
}

std::optional<KernelTypes::Member> KernelTypes::find_member(const Type& structure,
                                                            std::string_view name, unsigned depth,
                                                            std::size_t& looks_left) const {
  const std::uint32_t kind = kind_of(structure.info);
  if (depth > kDepthMax || (kind != kStruct && kind != kUnion)) return std::nullopt;
  const bool has_bit_fields = structure.info >> 31U != 0;
  for (std::size_t i = 0; i < count_of(structure.info) && looks_left > 0; ++i) {
    --looks_left;
    const std::size_t at = structure.details + 12 * i;
    const std::string_view member = text(word(at));
    const std::size_t bits = has_bit_fields ? word(at + 8) & kBitsMask : word(at + 8);
    if (member == name) return Member{.bits = bits, .type = word(at + 4)};
    if (!member.empty()) continue;
    const Type* const inner = behind_aliases(word(at + 4));
    if (inner == nullptr) continue;
    if (auto found = find_member(*inner, name, depth + 1, looks_left)) {
      found->bits += bits;
      return found;
    }
  }
  return std::nullopt;
}

std::optional<std::size_t> KernelTypes::offset_of(std::string_view structure,
                                                  std::string_view member) const {
  const Type* type = find(kStruct, structure);
  std::size_t bits = 0;
  std::size_t looks_left = kLooksMax;
  while (true) {
    if (type == nullptr) return std::nullopt;
    const std::string_view name = member.substr(0, member.find('.'));
    const auto found = find_member(*type, name, 0, looks_left);
    if (!found) return std::nullopt;
    bits += found->bits;
    if (name.size() == member.size()) break;
    member.remove_prefix(name.size() + 1);
    type = behind_aliases(found->type);
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::optional<std::size_t> KernelTypes::size_of(std::string_view structure) const {
  const Type* const type = find(kStruct, structure);
  if (type == nullptr) return std::nullopt;
  return type->size_or_type;
}

std::optional<std::uint32_t> KernelTypes::enumerator(std::string_view enumeration,
                                                     std::string_view name) const {
  const Type* const type = find(kEnum, enumeration);
  if (type == nullptr) return std::nullopt;
  for (std::size_t i = 0; i < count_of(type->info); ++i) {
    const std::size_t at = type->details + 8 * i;
    if (text(word(at)) == name) return word(at + 4);
  }
  return std::nullopt;
}

}  // namespace samepage::fingerprinter
