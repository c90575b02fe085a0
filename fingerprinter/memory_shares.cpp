#include "fingerprinter/memory_shares.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

namespace samepage::fingerprinter {
namespace {

struct Account {
  std::uint64_t resident = 0;
  std::uint64_t anonymous = 0;
  std::uint64_t ksm = 0;
};

/// The kibibytes of "Rss:                1024 kB", in bytes.
bool field(std::string_view line, std::string_view name, std::uint64_t& bytes) {
  if (!line.starts_with(name)) return false;
  line.remove_prefix(name.size());
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  std::uint64_t kib = 0;
  std::from_chars(line.data(), line.data() + line.size(), kib);
  bytes += kib << 10U;
  return true;
}

}  // namespace

MemoryShares shares_in(std::string_view smaps, const RamBlock& ram) {
  Account sum;
  bool inside = false;
  while (!smaps.empty()) {
    const std::string_view line = smaps.substr(0, smaps.find('\n'));
    smaps.remove_prefix(std::min(line.size() + 1, smaps.size()));
    if (const auto mappings = parse_maps(line); !mappings.empty()) {
      const Mapping& mapping = mappings.front();
      inside = mapping.start >= ram.address && mapping.end <= ram.address + ram.bytes;
    } else if (inside) {
      static_cast<void>(field(line, "Rss:", sum.resident) ||
                        field(line, "Anonymous:", sum.anonymous) || field(line, "KSM:", sum.ksm));
    }
  }
  const bool forked = ram.file_backed() && !ram.first.shared;
  if (!ram.first.shared) {
    return {.own = sum.anonymous - std::min(sum.ksm, sum.anonymous),
            .template_of = forked ? sum.resident - std::min(sum.anonymous, sum.resident) : 0,
            .ksm = sum.ksm};
  }
  return {.own = sum.resident, .template_of = 0, .ksm = 0};
}

Result<MemoryShares> memory_shares(const VmInfo& vm) {
  const GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const auto mappings = TRY(process.mappings());
  const RamBlock ram = TRY(find_ram(mappings, vm.memory_bytes));
  std::ifstream file("/proc/" + std::to_string(vm.pid) + "/smaps");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!process.alive() || text.empty()) return tl::unexpected(process.blame("smaps"));
  return shares_in(text, ram);
}

}  // namespace samepage::fingerprinter
