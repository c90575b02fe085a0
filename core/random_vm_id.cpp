#include "core/random_vm_id.h"

#include <array>
#include <cstdint>
#include <string>

#include <fmt/format.h>
#include <sys/random.h>

namespace samepage {

Result<VmId> random_vm_id() {
  std::array<std::uint8_t, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return fail(Errc::kIo, "the system gave no randomness");
  }
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
