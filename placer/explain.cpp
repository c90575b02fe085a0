#include "placer/explain.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/page.h"
#include "placer/gain.h"

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
std::string partners(const PageUnion& pages, std::span<const Vm* const> residents) {
  std::vector<std::pair<double, std::string>> shares;
  for (const Vm* resident : residents) {
    shares.emplace_back(pages.common(*resident).pages, resident->name);
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

std::string at_source(const Estimate& common, bool has_neighbours, const std::string& host) {
  if (!has_neighbours) return "but has no neighbour on " + host;
  if (common.low <= 0) return "but nothing with its neighbours on " + host;
  return fmt::format("but only {} with its neighbours on {}", mib_text(common.pages), host);
}

std::string why_not_now(const Placement::Room& room, const PlanOptions& options) {
  if (room.fits()) return fmt::format("but a plan has at most {} moves", options.moves_max);
  return fmt::format("which has no room: it brings {} and {} are free",
                     mib_text(static_cast<double>(room.needed)),
                     mib_text(static_cast<double>(room.free)));
}

struct Alternative {
  std::size_t host = 0;
  Gain gain;
};

// The other host where it would share most, whether it has room or not.
std::vector<Alternative> alternatives(Placement& placement, std::size_t vm) {
  std::vector<Alternative> found;
  for (std::size_t host = 0; host < placement.host_count(); ++host) {
    if (host == placement.host_of(vm) || !placement.may_receive(host)) continue;
    found.push_back({.host = host, .gain = gain_alone(placement, vm, host)});
  }
  std::stable_sort(found.begin(), found.end(), [](const Alternative& a, const Alternative& b) {
    return a.gain.pages > b.gain.pages;
  });
  return found;
}

std::string why_not_there(Placement& placement, std::size_t vm, const Alternative& there,
                          const PlanOptions& options) {
  const std::string name = placement.vm(vm).name;
  const std::string target = placement.host(there.host).name;
  const Estimate here = placement.common(vm, placement.host_of(vm));
  const std::string gain = mib_text(there.gain.pages);
  switch (judge(there.gain, options)) {
    case Worth::kNothing:
      break;
    case Worth::kTooSmall:
      return fmt::format("{} would gain {} on {}; a move must gain {}", name, gain, target,
                         mib_text(static_cast<double>(options.gain_pages_min)));
    case Worth::kDoubtful:
      return fmt::format("{} would gain {} on {}, which is within the estimate's error of {}", name,
                         gain, target, mib_text(there.gain.doubt));
    case Worth::kTooDear:
      return fmt::format("{} would gain {} on {} but send {}, more than {:.3g} to one", name, gain,
                         target, mib_text(there.gain.cost), options.cost_per_gain_max);
    case Worth::kYes:
      return fmt::format("{} would gain {} on {}, {}", name, gain, target,
                         why_not_now(placement.room(std::array{vm}, there.host), options));
  }
  if (here.low <= 0) return name + " shares nothing with the VMs of any host";
  const Estimate best = placement.common(vm, there.host);
  return fmt::format("{} shares {} with its neighbours on {}; {} offers {}", name,
                     mib_text(here.pages), placement.host(placement.host_of(vm)).name, target,
                     mib_text(best.low <= 0 ? 0 : best.pages));
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

std::string why_alone(Placement& placement, std::size_t vm, std::size_t target) {
  const std::size_t source = placement.host_of(vm);
  const Estimate there = placement.common(vm, target);
  const Vm* const moved = &placement.vm(vm);
  const std::string here =
      at_source(placement.common(vm, source), placement.on(source).size() > 1, moved->host);
  if (moved->fingerprint == nullptr) {
    return fmt::format("nothing is known of the memory of {} yet", moved->name);
  }
  if (there.low <= 0) {
    const Estimate lost = placement.common(vm, source);
    return fmt::format("{} shares nothing on {}, and {} on {}", moved->name,
                       placement.host(target).name,
                       lost.low <= 0 ? "nothing" : mib_text(lost.pages), moved->host);
  }
  return fmt::format("{} shares {} with {} on {}, {}", moved->name, mib_text(there.pages),
                     partners(PageUnion(std::array{moved}), placement.vms_on(target)),
                     placement.host(target).name, here);
}

std::string why_together(const Placement& placement, std::span<const std::size_t> group,
                         std::size_t target) {
  const std::size_t source = placement.host_of(group.front());
  std::vector<const Vm*> vms;
  std::vector<std::string> names;
  for (const std::size_t number : group) {
    vms.push_back(&placement.vm(number));
    names.push_back(placement.vm(number).name);
  }
  const PageUnion pages(vms);
  const std::vector<const Vm*> stay_behind = placement.vms_on(source, group);
  const std::vector<const Vm*> residents = placement.vms_on(target);
  const Estimate there = PageUnion(residents).common(pages);
  const Estimate here = PageUnion(stay_behind).common(pages);
  const std::string left = here.low <= 0 ? "nothing" : "only " + mib_text(here.pages);
  return fmt::format(
      "{} move together: they share {} with {} on {}, but {} with {} on {}", list(names),
      mib_text(there.pages), partners(pages, residents), placement.host(target).name, left,
      stay_behind.empty() ? "other VMs" : "the VMs that stay", placement.host(source).name);
}

std::string why_swapped(Placement& placement, std::size_t vm, std::size_t other) {
  return fmt::format("{}; it changes places with {} because there is no room for both",
                     why_alone(placement, vm, placement.host_of(other)), placement.vm(other).name);
}

std::string why_stays(Placement& placement, std::size_t vm, const PlanOptions& options) {
  if (!placement.why_fixed(vm).empty()) return placement.why_fixed(vm);
  const std::vector<Alternative> others = alternatives(placement, vm);
  if (others.empty()) return "no other host is up";
  return why_not_there(placement, vm, others.front(), options);
}

}  // namespace samepage::placer
