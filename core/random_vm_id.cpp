#include "core/random_vm_id.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include <fmt/format.h>

#include "core/random_bytes.h"

namespace samepage {

Result<VmId> random_vm_id() {
  std::array<std::uint8_t, 16> bytes{};
  TRY(fill_random(std::as_writable_bytes(std::span(bytes))));
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0FU) | 0x40U);
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3FU) | 0x80U);
  std::string uuid;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) uuid += '-';
    uuid += fmt::format("{:02x}", bytes.at(i));
  }
  return VmId{uuid};
}

}  // namespace samepage
