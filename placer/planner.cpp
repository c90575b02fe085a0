#include "placer/planner.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "fingerprinter/fingerprint.h"
#include "placer/consolidate.h"
#include "placer/explain.h"
#include "placer/improve.h"
#include "placer/in_parallel.h"
#include "placer/live_scene.h"
#include "placer/packing/bound.h"
#include "placer/packing/fleet_packer.h"
#include "placer/packing/least_movement.h"
#include "placer/prospects.h"
#include "placer/relieve.h"
#include "placer/sharing.h"

namespace samepage::placer {
namespace {

std::uint64_t rounded(double pages) {
  return static_cast<std::uint64_t>(std::llround(std::max(pages, 0.0)));
}

/// Pages that the fleet shares, predicted. In a large fleet out of the bitmaps from which decisions
/// are made: VMs and hosts by the same sample, so that most of its error cancels out.
std::uint64_t shared_pages(const Fleet& fleet, const Arrangement& arrangement) {
  const bool is_large = fleet.hosts.size() > Prospects::kAll;
  double pages = 0;
  for (std::uint32_t host = 0; host < fleet.hosts.size(); ++host) {
    std::vector<const Vm*> residents;
    double full = 0;
    for (const std::uint32_t number : arrangement.on(host)) {
      const Vm& vm = fleet.vms[number];
      residents.push_back(&vm);
      full += arrangement.scene().pages(arrangement.scene().vms[number].demand);
      if (vm.fingerprint == nullptr) continue;
      const fingerprinter::PageCounts& counts = vm.fingerprint->counts();
      full += static_cast<double>(counts.zero + counts.duplicate);
    }
    pages += is_large ? full - arrangement.merged(host) : predict_sharing(residents).total().pages;
  }
  return rounded(pages);
}

class Planner {
 public:
  Planner(const Fleet& fleet, const PlanOptions& options, const LiveScene& live)
      : fleet_(fleet),
        options_(options),
        live_(live),
        weights_(options.weights.value_or(weights_of(options.goal))),
        arrangement_(live.scene, {.headroom = options.headroom, .load_max = options.load_max}) {
    unsettle_unmerged(fleet, arrangement_);
    plan_.goal = options.goal;
    plan_.weights = weights_;
    plan_.notes = live.notes;
  }

  Plan run() {
    plan_.shared_before_pages = shared_pages(fleet_, arrangement_);
    plan_.hosts_before = used(arrangement_);
    const std::size_t by_rules = take(repair(arrangement_, live_.rules, moves_left()), "rule");
    const ReliefOptions relief{.load_threshold = options_.hotspot.threshold.front(),
                               .memory_threshold = options_.hotspot.threshold.back(),
                               .moves_max = moves_left()};
    const std::size_t by_heat = take(relieve(arrangement_, hot_hosts(), relief), "hotspot");
    if (weights_.hosts > 0) shrink();
    const bool improves = weights_.sharing >= weights_.hosts && weights_.sharing > 0;
    if (improves || weights_.balance > 0) {
      take(improve(arrangement_, has_moved(), improvement(moves_left())), "goal");
    }
    plan_.shared_after_pages = shared_pages(fleet_, arrangement_);
    plan_.hosts_after = used(arrangement_);
    name_freed_hosts();
    explain_stays();
    note_what_is_left_out();
    note_classes_without_model();
    plan_.summary = summarize(by_rules, by_heat);
    return std::move(plan_);
  }

  void move_one(std::uint32_t vm, std::uint32_t target) {
    plan_.shared_before_pages = shared_pages(fleet_, arrangement_);
    Decision decision;
    const Unit unit = arrangement_.unit_of(std::span(&vm, 1));
    Homes homes(arrangement_, {.weights = weights_, .moves_max = 1});
    homes.move(unit, target, "asked for; " + reason_to_move(vm, target), decision);
    take(std::move(decision), "asked");
    plan_.shared_after_pages = shared_pages(fleet_, arrangement_);
  }

  const Arrangement& arrangement() const { return arrangement_; }
  Plan take_plan() { return std::move(plan_); }

 private:
  std::size_t moves_left() const {
    return options_.moves_max - std::min(options_.moves_max, plan_.moves.size());
  }

  void name_freed_hosts() {
    std::vector<bool> held(fleet_.hosts.size());
    for (const SceneVm& vm : live_.scene.vms) held[vm.host] = true;
    for (std::uint32_t host = 0; host < fleet_.hosts.size(); ++host) {
      if (held[host] && arrangement_.on(host).empty()) {
        plan_.freed_hosts.push_back(fleet_.hosts[host].name);
      }
    }
  }

  std::string reason_to_move(std::uint32_t vm, std::uint32_t target) const {
    const Vm& info = fleet_.vms[vm];
    if (info.fingerprint != nullptr) {
      return why_moved(arrangement_, arrangement_.unit_of(std::span(&vm, 1)), target);
    }
    return fmt::format("nothing is known of the memory of {} yet", info.name);
  }

  ImproveOptions improvement(std::size_t moves_max) const {
    return {.weights = weights_,
            .gain_pages_min = static_cast<double>(options_.gain_pages_min),
            .cost_per_gain_max = options_.cost_per_gain_max,
            .moves_max = moves_max,
            .group_max = options_.group_max,
            .threads = options_.threads};
  }

  std::vector<bool> has_moved() const {
    std::vector<bool> moved(fleet_.vms.size());
    for (std::uint32_t vm = 0; vm < fleet_.vms.size(); ++vm) {
      moved[vm] = arrangement_.host_of(vm) != live_.scene.vms[vm].host;
    }
    return moved;
  }

  std::vector<HotHost> hot_hosts() const {
    std::vector<HotHost> hot;
    for (std::uint32_t host = 0; host < fleet_.hosts.size(); ++host) {
      const Host& info = fleet_.hosts[host];
      if (info.usage == nullptr || info.state != HostState::kUp) continue;
      auto found = find_hotspot(*info.usage, info.name, options_.hotspot);
      if (!found) continue;
      hot.push_back({.host = host,
                     .resource = found->resource,
                     .why = std::move(found->why),
                     .outright = found->outright});
    }
    return hot;
  }

  // Host by host; or, when there is time to search and it finds better, the whole fleet anew. What
  // of that has no room before what arrives is merged waits for a later plan.
  void shrink() {
    plan_.hosts_bound = bins_bound(live_.scene.problem(options_.headroom, Scene::Counted::kLeast));
    Arrangement one_by_one = arrangement_;
    const Decision freed =
        consolidate(one_by_one, {}, {.low_memory = 1, .moves_max = moves_left()});
    if (options_.search.count() > 0) {
      Arrangement anew = arrangement_;
      Decision packed = sequence(anew, pack_anew(), moves_left());
      if (used(anew) < used(one_by_one)) {
        arrangement_ = std::move(anew);
        take(std::move(packed), "goal");
        return;
      }
    }
    arrangement_ = std::move(one_by_one);
    take(freed, "goal");
  }

  static std::size_t used(const Arrangement& arrangement) {
    std::size_t used = 0;
    for (std::uint32_t host = 0; host < arrangement.scene().hosts.size(); ++host) {
      if (!arrangement.on(host).empty()) ++used;
    }
    return used;
  }

  std::vector<std::uint32_t> pack_anew() {
    const PackProblem problem = live_.scene.problem(options_.headroom);
    Packing packing = pack_fleet(problem, {.budget = options_.search,
                                           .seed = options_.seed,
                                           .threads = options_.threads,
                                           .bins_enough = plan_.hosts_bound});
    if (packing.left_out == 0) plan_.hosts_packed = packing.bins_used;
    match_bins(problem, arrangement_.hosts_of(), packing);
    return packing.bin_of;
  }

  std::size_t take(Decision decision, const char* cause) {
    for (Step& step : decision.steps) {
      moved_.insert(step.vm);
      const std::string& from = fleet_.hosts[step.source].hardware;
      const std::string& to = fleet_.hosts[step.target].hardware;
      if (from != to && !from.empty() && !to.empty()) ++crossings_[{from, to}];
      plan_.moves.push_back(planned(std::move(step)));
      plan_.moves.back().cause = cause;
    }
    for (Refusal& refusal : decision.refusals) {
      refused_.try_emplace(refusal.vm, std::move(refusal.reason));
    }
    return decision.steps.size();
  }

  PlannedMove planned(Step step) const {
    const Vm& vm = fleet_.vms[step.vm];
    return {.vm = vm.id,
            .name = vm.name,
            .sharing_domain = vm.sharing_domain,
            .source = fleet_.hosts[step.source].name,
            .target = fleet_.hosts[step.target].name,
            .paused = vm.state == VmState::kPaused,
            .reason = std::move(step.reason),
            .gain_pages = std::llround(step.gain_pages),
            .cost_pages = rounded(step.cost_pages),
            .terms = step.terms};
  }

  void explain_stays() {
    if (fleet_.hosts.size() > Prospects::kAll) arrangement_.index_hosts();
    const Prospects prospects(arrangement_);
    std::vector<Stayed> stayed(fleet_.vms.size());
    in_parallel(options_.threads, stayed.size(), [&](std::size_t number) {
      const auto vm = static_cast<std::uint32_t>(number);
      if (!moved_.contains(vm)) stayed[vm] = stays(vm, prospects);
    });
    for (std::uint32_t vm = 0; vm < fleet_.vms.size(); ++vm) {
      if (moved_.contains(vm)) continue;
      const auto refused = refused_.find(vm);
      if (refused != refused_.end()) {
        stayed[vm].reason = refused->second;
        stayed[vm].cause = "refused";
      }
      if (stayed[vm].gain_pages > closest_gain_) {
        closest_gain_ = stayed[vm].gain_pages;
        closest_ = stayed[vm].reason;
      }
      plan_.stays.push_back(stay(fleet_.vms[vm], std::move(stayed[vm])));
    }
  }

  Stay stay(const Vm& vm, Stayed stayed) const {
    const bool has_best = stayed.best != kNowhere;
    return {.vm = vm.id,
            .name = vm.name,
            .host = vm.host,
            .reason = std::move(stayed.reason),
            .cause = std::move(stayed.cause),
            .best_host = has_best ? fleet_.hosts[stayed.best].name : std::string(),
            .gain_pages = std::llround(stayed.gain_pages)};
  }

  Stayed stays(std::uint32_t vm, const Prospects& prospects) const {
    const bool goes_on = weights_.sharing > 0 || weights_.balance > 0;
    if (goes_on || !live_.scene.vms[vm].why_fixed.empty()) {
      return why_stays(arrangement_, prospects, vm, improvement(options_.moves_max));
    }
    return {.reason = fmt::format("no rule, drain or hotspot asks {} to move", fleet_.vms[vm].name),
            .cause = "unasked"};
  }

  // Nothing ever leaves a host that is not up.
  void note_what_is_left_out() {
    for (std::uint32_t number = 0; number < fleet_.hosts.size(); ++number) {
      const Host& host = fleet_.hosts[number];
      const std::size_t vms = arrangement_.on(number).size();
      if (host.state == HostState::kUp || vms == 0) continue;
      plan_.notes.push_back(fmt::format("{} is {}; its {} VMs are left out of account", host.name,
                                        host.state == HostState::kDown ? "down" : "not seen yet",
                                        vms));
    }
  }

  void note_classes_without_model() {
    for (const auto& [classes, count] : crossings_) {
      const bool has_model = std::any_of(
          options_.class_models.begin(), options_.class_models.end(), [&](const ClassModel& model) {
            return model.source == classes.first && model.target == classes.second;
          });
      if (has_model) continue;
      plan_.notes.push_back(fmt::format(
          "there is no overhead model from {} to {}: what {} VMs use there is taken to be what "
          "they use here; `samepage model fit` makes one",
          classes.first, classes.second, count));
    }
  }

  std::string summarize(std::size_t by_rules, std::size_t by_heat) const {
    const auto before = mib_text(static_cast<double>(plan_.shared_before_pages));
    const auto after = mib_text(static_cast<double>(plan_.shared_after_pages));
    const std::size_t moves = plan_.moves.size();
    if (moves > 0) return summarize_moves(by_rules, by_heat, before, after);
    const auto up = std::count_if(fleet_.hosts.begin(), fleet_.hosts.end(),
                                  [](const Host& host) { return host.state == HostState::kUp; });
    if (up < 2) return fmt::format("nothing to do: {} of the hosts is up", up);
    if (!closest_.empty()) return "nothing is worth moving: " + closest_;
    if (plan_.goal == Goal::kMovement) return "nothing must be moved";
    if (plan_.goal == Goal::kHosts) return "no host can be freed";
    return fmt::format(
        "nothing is worth moving: no VM would share more elsewhere than the {} of now", before);
  }

  std::string summarize_moves(std::size_t by_rules, std::size_t by_heat, const std::string& before,
                              const std::string& after) const {
    const std::size_t moves = plan_.moves.size();
    std::string text = fmt::format("{} {}", moves, moves == 1 ? "move" : "moves");
    const std::size_t others = moves - by_rules - by_heat;
    std::string freed;
    for (const std::string& host : plan_.freed_hosts) {
      freed += (freed.empty() ? "; freed: " : ", ") + host;
    }
    if (others == moves && plan_.goal == Goal::kSharing) {
      return text + fmt::format(" {} the predicted sharing from {} to {}{}",
                                moves == 1 ? "raises" : "raise", before, after, freed);
    }
    std::string why;
    const auto add = [&](std::size_t count, std::string_view what) {
      if (count > 0) why += fmt::format("{}{} {}", why.empty() ? ": " : ", ", count, what);
    };
    add(by_rules, "for rules and drains");
    add(by_heat, "for hotspots");
    add(others, fmt::format("for {}", to_string(plan_.goal)));
    text += why + freed;
    return text + fmt::format("; predicted sharing {} before, {} after", before, after);
  }

  const Fleet& fleet_;
  const PlanOptions& options_;
  const LiveScene& live_;
  Weights weights_;
  Arrangement arrangement_;
  Plan plan_;
  std::set<std::uint32_t> moved_;
  std::map<std::pair<std::string, std::string>, std::size_t> crossings_;  // Moves between classes.
  std::map<std::uint32_t, std::string> refused_;
  double closest_gain_ = 0;  // Of the VM that comes closest to a move, and why it stays.
  std::string closest_;
};

Result<void> check_can_move(const Vm& vm) {
  if (!vm.copy_on.empty()) {
    return fail(Errc::kInvalid, fmt::format("{} has a copy on {}: a migration goes on, or left it",
                                            vm.name, vm.copy_on));
  }
  if (vm.state == VmState::kRunning || vm.state == VmState::kPaused) return {};
  return fail(Errc::kInvalid,
              fmt::format("{} neither runs nor is paused; it cannot be moved live", vm.name));
}

}  // namespace

std::string_view to_string(PlanKind kind) {
  switch (kind) {
    case PlanKind::kAsked:
      return "asked";
    case PlanKind::kShadow:
      return "shadow";
    case PlanKind::kRecommended:
      return "recommended";
    case PlanKind::kAutomatic:
      return "automatic";
  }
  return "unknown";
}

Result<Plan> plan(const Fleet& fleet, const PlanOptions& options) {
  const LiveScene live =
      TRY(make_live_scene(fleet, {.rules = options.rules,
                                  .resting = options.resting,
                                  .fingerprint_age_max = options.fingerprint_age_max,
                                  .class_models = options.class_models}));
  return Planner(fleet, options, live).run();
}

Result<Plan> plan_move(const Fleet& fleet, std::string_view vm_name, std::string_view target_name,
                       const PlanOptions& options) {
  const Vm* const named = TRY(fleet.named(vm_name));
  const Host* const to = fleet.find_host(target_name);
  if (to == nullptr) {
    return fail(Errc::kNotFound,
                fmt::format("no host named {}; `samepage hosts` lists them", target_name));
  }
  if (named->host == to->name) {
    return fail(Errc::kInvalid, fmt::format("{} is on {} already", named->name, to->name));
  }
  for (const Host* host : {fleet.find_host(named->host), to}) {
    if (host->state == HostState::kUp) continue;
    return fail(Errc::kUnavailable,
                fmt::format("{} is down: its agent does not report", host->name));
  }
  TRY(check_can_move(*named));

  // An old fingerprint is better than none: the administrator has decided already.
  const LiveScene live =
      TRY(make_live_scene(fleet, {.rules = options.rules,
                                  .resting = {},
                                  .fingerprint_age_max = std::chrono::milliseconds::max(),
                                  .class_models = options.class_models}));
  const auto vm = static_cast<std::uint32_t>(named - fleet.vms.data());
  const auto target = static_cast<std::uint32_t>(to - fleet.hosts.data());
  Planner planner(fleet, options, live);
  const Arrangement& arrangement = planner.arrangement();
  const Unit unit = arrangement.unit_of(std::span(&vm, 1));
  if (const auto obstacle = arrangement.obstacle(unit, target)) {
    if (obstacle->kind != Obstacle::Kind::kMemory) {
      return fail(Errc::kInvalid,
                  named->name + " was not moved: " + arrangement.describe(*obstacle, target));
    }
    return fail(Errc::kInvalid,
                fmt::format("{} has no room for {}: it brings {} and {} are free", to->name,
                            named->name, mib_text(obstacle->needed), mib_text(obstacle->free)));
  }
  planner.move_one(vm, target);
  Plan plan = planner.take_plan();
  plan.summary = fmt::format("{} moves from {} to {}", named->name, named->host, to->name);
  return plan;
}

}  // namespace samepage::placer
