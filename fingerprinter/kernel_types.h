#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace samepage::fingerprinter {

/// The layout of a Linux kernel's own structures, as the kernel has it in its read-only data: the
/// BPF type format, BTF (Documentation/bpf/btf.rst).
///
/// Threads: immutable. Lifetime: borrows the bytes.
class KernelTypes {
 public:
  /// BTF begins with these bytes: magic 0xeB9F, version 1, no flags, a header of 24 bytes.
  static constexpr std::size_t kHeaderBytes = 24;
  static bool looks_like(std::span<const std::byte> bytes);

  /// `bytes` begins with BTF and may go on behind it. kCorrupt: it is not what the format says.
  static Result<KernelTypes> parse(std::span<const std::byte> bytes);

  /// Bytes from the begin of a struct to a member, "a.b" for one inside a member; what is in
  /// members without a name counts as the struct's own. None: no such struct or member, or a
  /// member that does not begin with a byte.
  std::optional<std::size_t> offset_of(std::string_view structure, std::string_view member) const;

  std::optional<std::size_t> size_of(std::string_view structure) const;

  /// The value of an enumerator of an enum with a name.
  std::optional<std::uint32_t> enumerator(std::string_view enumeration,
                                          std::string_view name) const;

 private:
  struct Type {
    std::uint32_t name = 0;
    std::uint32_t info = 0;
    std::uint32_t size_or_type = 0;
    std::uint32_t details = 0;  ///< Where what follows the type is in types_bytes_.
  };
  struct Member {
    std::size_t bits = 0;
    std::uint32_t type = 0;
  };

  std::string_view text(std::uint32_t offset) const;
  std::uint32_t word(std::size_t offset) const;
  Result<void> read_types();
  const Type* find(std::uint32_t kind, std::string_view name) const;
  const Type* behind_aliases(std::uint32_t id) const;
  std::optional<Member> find_member(const Type& structure, std::string_view name, unsigned depth,
                                    std::size_t& looks_left) const;

  std::span<const std::byte> type_bytes_;
  std::span<const std::byte> strings_;
  std::vector<Type> types_;  ///< Type 1 first: type 0 is void.
};

}  // namespace samepage::fingerprinter
