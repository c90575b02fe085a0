#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "migrator/libvirt_rpc.h"

namespace samepage::migrator {

inline void put_be32(std::vector<std::byte>& bytes, std::size_t at, std::uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) {
    bytes.at(at + i) = static_cast<std::byte>(value >> (24U - 8 * i));
  }
}

/// A message as libvirt writes it: length, header, text, one last word.
inline std::vector<std::byte> rpc_message(const RpcHeader& header, std::string_view text,
                                          std::uint32_t last_word = 0) {
  constexpr std::size_t kHead = 28;
  std::vector<std::byte> bytes(kHead + text.size() + 4);
  put_be32(bytes, 0, static_cast<std::uint32_t>(bytes.size()));
  put_be32(bytes, 4, header.program);
  put_be32(bytes, 8, header.version);
  put_be32(bytes, 12, header.procedure);
  put_be32(bytes, 16, header.type);
  put_be32(bytes, 20, header.serial);
  put_be32(bytes, 24, header.status);
  for (std::size_t i = 0; i < text.size(); ++i) {
    bytes[kHead + i] = static_cast<std::byte>(text[i]);
  }
  put_be32(bytes, bytes.size() - 4, last_word);
  return bytes;
}

}  // namespace samepage::migrator
