#include "placer/explain.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/page.h"

namespace samepage::placer {
namespace {

constexpr std::size_t kNamesMax = 3;

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? " and " : ", ";
    text += names[i];
  }
  return text;
}

// Those residents that hold at least half as much of it as the one that holds most.
std::string partners(const Arrangement& arrangement, const Unit& unit, std::uint32_t host) {
  const Scene& scene = arrangement.scene();
  std::vector<std::pair<double, std::string>> shares;
  for (const std::uint32_t resident : arrangement.on(host)) {
    const SceneVm& vm = scene.vms[resident];
    shares.emplace_back(scene.common(unit.demand.cells, vm.demand.cells), vm.name);
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> names;
  std::size_t alike = 0;
  for (const auto& [share, name] : shares) {
    if (share < shares.front().first / 2) break;
    ++alike;
    if (names.size() < kNamesMax) names.push_back(name);
  }
  if (alike <= kNamesMax) return list(names);
  names.resize(kNamesMax - 1);
  names.push_back(fmt::format("{} more", alike - names.size()));
  return list(names);
}

std::string names_of(const Arrangement& arrangement, const Unit& unit) {
  std::vector<std::string> names;
  for (const std::uint32_t vm : unit.vms) names.push_back(arrangement.scene().vms[vm].name);
  return list(names);
}

std::string source_of(const Arrangement& arrangement, const Unit& unit) {
  return arrangement.scene().hosts[arrangement.host_of(unit.vms.front())].name;
}

std::string at_source(const Arrangement& arrangement, const Unit& unit, const Shared& here) {
  const std::uint32_t source = arrangement.host_of(unit.vms.front());
  const std::string& host = arrangement.scene().hosts[source].name;
  const bool alone = arrangement.on(source).size() == unit.vms.size();
  if (alone)
    return unit.vms.size() == 1 ? "but has no neighbour on " + host
                                : "but nothing with other VMs on " + host;
  const std::string who = unit.vms.size() == 1 ? "its neighbours" : "the VMs that stay";
  if (!here.is_sure()) return fmt::format("but nothing with {} on {}", who, host);
  return fmt::format("but only {} with {} on {}", mib_text(here.pages), who, host);
}

std::string why_not_now(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
                        const ImproveOptions& options) {
  const auto obstacle = arrangement.obstacle(unit, target);
  if (!obstacle) return fmt::format("but a plan has at most {} moves", options.moves_max);
  if (obstacle->kind != Obstacle::Kind::kMemory) {
    return "but " + arrangement.describe(*obstacle, target);
  }
  return fmt::format("which has no room: it brings {} and {} are free", mib_text(obstacle->needed),
                     mib_text(obstacle->free));
}

}  // namespace

std::string mib_text(double pages) {
  const double mib = pages * static_cast<double>(kPageSize) / (1024.0 * 1024.0);
  const bool is_whole = mib >= 9.95 || mib < 0.05;
  return is_whole ? fmt::format("{:.0f} MiB", mib) : fmt::format("{:.1f} MiB", mib);
}

std::string age_text(std::chrono::milliseconds age) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(age).count();
  constexpr std::int64_t kMinute = 60;
  if (seconds < 2 * kMinute) return fmt::format("{} s", seconds);
  if (seconds < 2 * kMinute * kMinute) return fmt::format("{} min", seconds / kMinute);
  return fmt::format("{} h", seconds / (kMinute * kMinute));
}

std::string why_moved(const Arrangement& arrangement, const Unit& unit, std::uint32_t target) {
  const std::uint32_t source = arrangement.host_of(unit.vms.front());
  const std::string& host = arrangement.scene().hosts[target].name;
  const std::string names = names_of(arrangement, unit);
  const bool one = unit.vms.size() == 1;
  const Shared there = shared_at(arrangement, unit, target);
  const Shared here = shared_at(arrangement, unit, source, unit.vms);
  const std::string who = one ? names + " shares" : names + " move together: they share";
  if (!there.is_sure()) {
    return fmt::format("{} nothing on {}, and {} on {}", who, host,
                       here.is_sure() ? mib_text(here.pages) : "nothing",
                       source_of(arrangement, unit));
  }
  return fmt::format("{} {} with {} on {}, {}", who, mib_text(there.pages),
                     partners(arrangement, unit, target), host, at_source(arrangement, unit, here));
}

std::string why_swapped(const Arrangement& arrangement, const Unit& unit, const Unit& other) {
  return fmt::format("{}; it changes places with {} because there is no room for both",
                     why_moved(arrangement, unit, arrangement.host_of(other.vms.front())),
                     names_of(arrangement, other));
}

std::string why_not_there(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
                          const Gain& gain, const ImproveOptions& options) {
  const std::string name = names_of(arrangement, unit);
  const std::string& host = arrangement.scene().hosts[target].name;
  const std::string text = mib_text(gain.value);
  switch (judge(gain, options)) {
    case Worth::kNothing:
      break;
    case Worth::kTooSmall:
      if (gain.value <= options.weights.sharing * gain.doubt) break;
      return fmt::format("{} would gain {} on {}; a move must gain {}", name, text, host,
                         mib_text(options.gain_pages_min));
    case Worth::kDoubtful:
      return fmt::format("{} would gain {} on {}, give or take {}; a move must surely gain {}",
                         name, text, host, mib_text(gain.doubt), mib_text(options.gain_pages_min));
    case Worth::kTooDear:
      return fmt::format("{} would gain {} on {} but send {}, more than {:.3g} to one", name, text,
                         host, mib_text(gain.cost), options.cost_per_gain_max);
    case Worth::kYes:
      return fmt::format("{} would gain {} on {}, {}", name, text, host,
                         why_not_now(arrangement, unit, target, options));
  }
  const std::uint32_t source = arrangement.host_of(unit.vms.front());
  const Shared here = shared_at(arrangement, unit, source, unit.vms);
  if (!here.is_sure()) return name + " shares nothing with the VMs of any host";
  const Shared there = shared_at(arrangement, unit, target);
  return fmt::format("{} shares {} with its neighbours on {}; {} offers {}", name,
                     mib_text(here.pages), source_of(arrangement, unit), host,
                     mib_text(there.is_sure() ? there.pages : 0));
}

std::string cause_not_there(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
                            const Gain& gain, const ImproveOptions& options) {
  switch (judge(gain, options)) {
    case Worth::kNothing:
      break;
    case Worth::kTooSmall:
      return "too_small";
    case Worth::kDoubtful:
      return "doubtful";
    case Worth::kTooDear:
      return "too_dear";
    case Worth::kYes:
      return arrangement.obstacle(unit, target) ? "no_room" : "too_many_moves";
  }
  return "no_better";
}

}  // namespace samepage::placer
