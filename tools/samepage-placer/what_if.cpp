#include "tools/samepage-placer/what_if.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/page_count.h"
#include "placer/sharing.h"

namespace samepage::control {
namespace {

using nlohmann::json;
using placer::Estimate;
using placer::Fleet;

constexpr std::size_t kMovesMax = 1'000;

struct Wish {
  std::string vm;
  std::string host;
};

Result<std::vector<Wish>> read_wishes(std::string_view moves) {
  std::vector<Wish> wishes;
  while (!moves.empty()) {
    const std::string_view one = moves.substr(0, moves.find(','));
    moves.remove_prefix(std::min(one.size() + 1, moves.size()));
    const std::size_t sign = one.rfind('=');
    if (sign == std::string_view::npos || sign == 0 || sign + 1 == one.size()) {
      return fail(Errc::kInvalid, "\"" + std::string(one) + "\" is not VM=HOST");
    }
    if (wishes.size() == kMovesMax) return fail(Errc::kInvalid, "too many moves");
    wishes.push_back({std::string(one.substr(0, sign)), std::string(one.substr(sign + 1))});
  }
  if (wishes.empty()) return fail(Errc::kInvalid, "which VM, to which host? VM=HOST");
  return wishes;
}

Estimate shared_on(const Fleet& fleet, const std::string& host) {
  const auto vms = fleet.vms_on(host);
  return placer::predict_sharing(vms).total();
}

/// Of the oldest fingerprint among a host's VMs; nothing when one has none.
std::optional<double> oldest_s(const Fleet& fleet, const std::string& host) {
  std::chrono::milliseconds oldest{0};
  for (const placer::Vm* vm : fleet.vms_on(host)) {
    if (vm->fingerprint == nullptr) return std::nullopt;
    oldest = std::max(oldest, vm->fingerprint_age);
  }
  return std::chrono::duration<double>(oldest).count();
}

json host_json(const Fleet& before, const Fleet& after, const std::string& host) {
  const Estimate then = shared_on(before, host);
  const Estimate now = shared_on(after, host);
  const auto age = oldest_s(after, host);
  return {{"name", host},
          {"before_mib", then.pages / kPagesPerMib},
          {"after_mib", now.pages / kPagesPerMib},
          {"low_mib", now.low / kPagesPerMib},
          {"high_mib", now.high / kPagesPerMib},
          {"oldest_fingerprint_age_s", age ? json(*age) : json(nullptr)}};
}

}  // namespace

Result<json> what_if_json(Fleet fleet, std::string_view moves) {
  const Fleet before = fleet;
  std::set<std::string> touched;
  json asked = json::array();
  for (const Wish& wish : TRY(read_wishes(moves))) {
    const placer::Vm* const found = TRY(before.named(wish.vm));
    if (before.find_host(wish.host) == nullptr) {
      return fail(Errc::kNotFound, "no host named " + wish.host + "; `samepage hosts` lists them");
    }
    const auto vm = std::find_if(fleet.vms.begin(), fleet.vms.end(),
                                 [&](const placer::Vm& one) { return one.id == found->id; });
    touched.insert({vm->host, wish.host});
    asked.push_back({{"vm", vm->name}, {"source", vm->host}, {"target", wish.host}});
    vm->host = wish.host;
  }
  json hosts = json::array();
  double gain = 0;
  for (const std::string& host : touched) {
    hosts.push_back(host_json(before, fleet, host));
    gain += hosts.back()["after_mib"].get<double>() - hosts.back()["before_mib"].get<double>();
  }
  return json{{"moves", std::move(asked)}, {"hosts", std::move(hosts)}, {"gain_mib", gain}};
}

}  // namespace samepage::control
