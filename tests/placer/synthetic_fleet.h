#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/page_hash.h"
#include "fingerprinter/fingerprint.h"
#include "placer/fleet.h"

namespace samepage::placer {

inline constexpr std::uint64_t kPagesPerMib = 256;

/// Distinct page contents, taken from the pool of this name: equal pools give equal pages.
struct Ingredient {
  std::string pool;
  std::uint64_t mib = 0;
};

/// The hash of page `index` of a pool (SplitMix64, so that hashes look like XXH3's).
inline PageHash pool_hash(std::string_view pool, std::uint64_t index) {
  std::uint64_t mixed = std::hash<std::string_view>()(pool) + (index + 1) * 0x9E3779B97F4A7C15U;
  mixed = (mixed ^ (mixed >> 30U)) * 0xBF58476D1CE4E5B9U;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94D049BB133111EBU;
  return PageHash{mixed ^ (mixed >> 31U)};
}

/// The fingerprint of a guest whose memory holds these pages, and `zero_mib` of zeros.
inline fingerprinter::Fingerprint fingerprint_of(const std::vector<Ingredient>& ingredients,
                                                 std::uint64_t zero_mib = 0) {
  fingerprinter::Scan scan;
  scan.zero = zero_mib * kPagesPerMib;
  for (const Ingredient& ingredient : ingredients) {
    for (std::uint64_t i = 0; i < ingredient.mib * kPagesPerMib; ++i) {
      scan.hashed.push_back({.page = scan.hashed.size(), .hash = pool_hash(ingredient.pool, i)});
    }
  }
  scan.pages = scan.hashed.size() + scan.zero;
  return fingerprinter::Fingerprint::of(scan);
}

/// A fleet for tests, written down in a few lines. Call sorted() last.
class SyntheticFleet {
 public:
  SyntheticFleet& host(const std::string& name, std::uint64_t capacity_mib) {
    Host added;
    added.name = name;
    added.state = HostState::kUp;
    added.capacity_pages = capacity_mib * kPagesPerMib;
    added.cpus = 4;
    fleet_.hosts.push_back(added);
    return *this;
  }

  /// A VM with these pages and 30 MiB that no other VM has.
  SyntheticFleet& vm(const std::string& name, const std::string& host,
                     std::vector<Ingredient> ingredients) {
    ingredients.push_back({.pool = "own of " + name, .mib = 30});
    Vm added;
    added.id = VmId{"uuid-" + name};
    added.name = name;
    added.host = host;
    added.state = VmState::kRunning;
    added.memory_pages = 256 * kPagesPerMib;
    added.sharing_domain = "default";
    added.fingerprint =
        std::make_shared<const fingerprinter::Fingerprint>(fingerprint_of(ingredients, 5));
    added.fingerprint_age = std::chrono::seconds(20);
    fleet_.vms.push_back(added);
    return *this;
  }

  Vm& last() { return fleet_.vms.back(); }
  Fleet& fleet() { return fleet_; }

 private:
  Fleet fleet_;
};

}  // namespace samepage::placer
