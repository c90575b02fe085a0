#include "placer/simulator.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "core/page.h"
#include "placer/arrangement.h"
#include "placer/consolidate.h"
#include "placer/homes.h"
#include "placer/packing/page_pools.h"
#include "placer/relieve.h"
#include "placer/simulated_memory.h"
#include "placer/simulated_moves.h"
#include "placer/simulated_reports.h"

namespace samepage::placer {
namespace {

constexpr std::size_t kVmWindow = 30;
constexpr std::size_t kNotesMax = 100;
constexpr double kPingPongS = 3'600;

struct VmLife {
  enum class State : std::uint8_t { kComing, kHere, kGone };
  State state = State::kComing;
  std::size_t mix = 0;
  std::uint32_t first = kNowhere;  ///< Host where it began: its loads are those of that class.
  std::array<UsageSeries, kLoads> usage{UsageSeries(kVmWindow), UsageSeries(kVmWindow),
                                        UsageSeries(kVmWindow)};
  Loads now{};
  std::map<std::uint32_t, double> left_s;  ///< When it left which host, lately.
};

class Simulator {
 public:
  explicit Simulator(const Scenario& scenario)
      : scenario_(scenario),
        policy_(scenario.policy),
        random_(scenario.seed),
        pools_(scenario.words, scenario.pages_per_cell),
        lives_(scenario.vms.size()),
        reports_(scenario.policy, scenario.hosts.size(), random_),
        memory_(scene_, scenario.vms.size(), scenario.hosts.size(), scenario.policy.merge_s),
        cooldowns_(scenario.policy.cooldown),
        moves_(scenario.policy) {}

  Result<SimulationReport> run() {
    TRY(set_up());
    for (now_s_ = 0; now_s_ < scenario_.duration_s; now_s_ += scenario_.interval_s) {
      TRY(happen());
      land();
      observe();
      decide();
      moves_.launch(now_s_);
      ++report_.intervals;
    }
    finish();
    return std::move(report_);
  }

 private:
  Result<void> set_up() {
    scene_.words = scenario_.words;
    scene_.pages_of_cells = pools_.pages_of_cells();
    scene_.hosts = scenario_.hosts;
    scene_.class_models = scenario_.class_models;
    std::map<std::string, std::uint32_t, std::less<>> host_numbers;
    for (std::uint32_t i = 0; i < scene_.hosts.size(); ++i) {
      if (!host_numbers.emplace(scene_.hosts[i].name, i).second) {
        return fail(Errc::kInvalid, "two hosts are named " + scene_.hosts[i].name);
      }
    }
    std::set<std::string, std::less<>> vm_names;
    for (std::uint32_t i = 0; i < scenario_.vms.size(); ++i) {
      const ScenarioVm& vm = scenario_.vms[i];
      if (!vm_names.insert(vm.name).second)
        return fail(Errc::kInvalid, "two VMs are named " + vm.name);
      if (vm.memory.empty()) return fail(Errc::kInvalid, vm.name + " has no memory");
      SceneVm added;
      added.id = added.name = vm.name;
      scene_.vms.push_back(std::move(added));
      TRY(take_mix(i, 0));
      if (vm.host.empty()) continue;
      const auto host = host_numbers.find(vm.host);
      if (host == host_numbers.end()) {
        return fail(Errc::kInvalid, vm.name + " is on " + vm.host + ", which is no host");
      }
      start_on_.emplace(i, host->second);
    }
    for (const ScenarioEvent& event : scenario_.events) {
      if (!host_numbers.contains(event.host)) {
        return fail(Errc::kInvalid, "an event names " + event.host + ", which is no host");
      }
    }
    for (std::string& name : TRY(apply_rules(scenario_.rules, scene_))) note(std::move(name));
    by_rules_ = scene_;
    const std::string fault = find_scene_fault(scene_);
    if (!fault.empty()) return fail(Errc::kInvalid, fault);
    if (pools_.has_wrapped()) note("the pools have more pages than the bitmaps: they collide");
    return {};
  }

  Result<void> take_mix(std::uint32_t number, std::size_t mix) {
    SceneVm& vm = scene_.vms[number];
    const MemoryMix& memory = scenario_.vms[number].memory.at(mix);
    PackItem fresh;
    fresh.cells.resize(scene_.words);
    double full = memory.own_pages;
    fresh.own = memory.own_pages;
    for (const PoolPages& pool : memory.pools) {
      if (!std::isfinite(pool.pages) || pool.pages < 0) {
        return fail(Errc::kInvalid, vm.name + " has an impossible number of pages of " + pool.pool);
      }
      pools_.add(pool.pool, pool.pages, fresh);
      full += pool.pages;
    }
    vm.demand.cells = std::move(fresh.cells);
    vm.demand.own = fresh.own;
    vm.full_pages = full;
    lives_[number].mix = mix;
    memory_.changed(number);
    return {};
  }

  void note(std::string text) {
    if (report_.notes.size() < kNotesMax) report_.notes.push_back(std::move(text));
  }

  // What the scenario says happens by now.
  Result<void> happen() {
    for (const ScenarioEvent& event : scenario_.events) {
      if (event.at_s >= now_s_ && event.at_s < now_s_ + scenario_.interval_s) apply(event);
    }
    std::vector<std::uint32_t> coming;
    for (std::uint32_t i = 0; i < lives_.size(); ++i) {
      const ScenarioVm& vm = scenario_.vms[i];
      VmLife& life = lives_[i];
      if (life.state == VmLife::State::kGone) continue;
      if (now_s_ >= vm.leaves_s) {
        leave(i);
        continue;
      }
      if (life.mix + 1 < vm.memory.size() && now_s_ >= vm.memory[life.mix + 1].at_s) {
        TRY(take_mix(i, life.mix + 1));
      }
      if (life.state == VmLife::State::kComing && now_s_ >= vm.arrives_s) coming.push_back(i);
    }
    arrive(coming);
    return {};
  }

  void apply(const ScenarioEvent& event) {
    const std::uint32_t host = scene_.find_host(event.host);
    SceneHost& there = scene_.hosts[host];
    if (event.kind == ScenarioEvent::Kind::kDrain) {
      there.leave = true;
      there.why_closed = event.host + " is to be empty";
      return;
    }
    there.is_up = event.kind == ScenarioEvent::Kind::kUp;
    if (there.is_up) return;
    note(event.host + " vanished; its VMs are left out of decisions");
    moves_.forget_host(host);
  }

  void leave(std::uint32_t vm) {
    SceneVm& here = scene_.vms[vm];
    if (here.host != kNowhere) put(vm, kNowhere);
    lives_[vm].state = VmLife::State::kGone;
    moves_.forget_vm(vm);
  }

  void put(std::uint32_t vm, std::uint32_t host) {
    SceneVm& moved = scene_.vms[vm];
    forget_usage_elsewhere(vm, moved.host, host);
    memory_.move(vm, moved.host, host, now_s_);
    moved.host = host;
    if (lives_[vm].first == kNowhere) lives_[vm].first = host;
  }

  // What a VM used on another class of hosts says nothing of what it uses on this one.
  void forget_usage_elsewhere(std::uint32_t vm, std::uint32_t from, std::uint32_t to) {
    if (from == kNowhere || to == kNowhere) return;
    if (scene_.hosts[from].hardware == scene_.hosts[to].hardware) return;
    lives_[vm].usage.fill(UsageSeries(kVmWindow));
  }

  void arrive(const std::vector<std::uint32_t>& coming) {
    std::vector<std::uint32_t> homeless;
    for (const std::uint32_t vm : coming) {
      lives_[vm].state = VmLife::State::kHere;
      lives_[vm].now = loads_of(vm);
      const auto fixed = start_on_.find(vm);
      if (fixed == start_on_.end()) {
        homeless.push_back(vm);
        continue;
      }
      put(vm, fixed->second);
      memory_.settle(vm, now_s_);
      ++report_.vms_placed;
    }
    if (homeless.empty()) return;
    Arrangement arrangement = arrange();
    for (const std::uint32_t vm : homeless) {
      const bool placed = policy_.placement == ScenarioPolicy::Placement::kShare
                              ? place_by_sharing(vm, arrangement)
                              : place_by_size(vm, arrangement);
      placed ? ++report_.vms_placed : ++report_.vms_refused;
      if (!placed) lives_[vm].state = VmLife::State::kGone;
    }
  }

  bool place_by_sharing(std::uint32_t vm, Arrangement& arrangement) {
    Homes homes(arrangement, {.weights = {.sharing = 1, .hosts = 0.02, .balance = 0.1},
                              .moves_max = policy_.make_room ? policy_.moves_max : 1});
    Decision decision;
    const Unit unit = arrangement.unit(vm);
    if (!homes.settle_in(unit, "shares most there", decision)) {
      note(homes.why_not(unit));
      return false;
    }
    for (const Step& step : decision.steps) {
      if (step.vm == vm)
        put(vm, step.target);
      else
        fly_now(step);
    }
    return true;
  }

  // Room for an arrival is made before it arrives.
  void fly_now(const Step& step) {
    record({.step = step, .started_s = now_s_, .ends_s = now_s_});
    put(step.vm, step.target);
  }

  bool place_by_size(std::uint32_t vm, Arrangement& arrangement) {
    const Unit unit = arrangement.unit(vm);
    std::uint32_t best = kNowhere;
    double least = 0;
    for (std::uint32_t host = 0; host < scene_.hosts.size(); ++host) {
      const double usable = scene_.hosts[host].bin.capacity * (1 - policy_.headroom);
      const double left = usable - arrangement.arriving(host) - unit.full_pages;
      const auto obstacle = arrangement.obstacle(unit, host);
      if (left < 0 || (obstacle && obstacle->kind != Obstacle::Kind::kMemory)) continue;
      if (best != kNowhere && left >= least) continue;
      best = host;
      least = left;
    }
    if (best == kNowhere) return false;
    arrangement.move(vm, best);
    put(vm, best);
    return true;
  }

  Loads loads_of(std::uint32_t vm) {
    Loads loads{};
    for (std::size_t i = 0; i < kLoads; ++i) {
      loads.at(i) = scenario_.vms[vm].loads.at(i).at(now_s_, random_);
    }
    return converted(loads, lives_[vm].first, scene_.vms[vm].host);
  }

  /// Loads that were measured on one host, as they are on another.
  Loads converted(const Loads& loads, std::uint32_t from, std::uint32_t to) const {
    if (from == kNowhere || to == kNowhere) return loads;
    Loads there = loads;
    for (const ClassModel& model : scenario_.class_models) {
      const bool fits = model.source == scene_.hosts[from].hardware &&
                        model.target == scene_.hosts[to].hardware && from != to;
      if (fits) there.at(static_cast<std::size_t>(model.of)) = predict(model, loads);
    }
    return there;
  }

  /// The scene as decisions see it: VMs with what they should be counted with, those that must not
  /// move now marked, those on their way where they will be.
  Arrangement arrange() {
    for (std::uint32_t vm = 0; vm < scene_.vms.size(); ++vm) describe(vm);
    moves_.visit([&](const Step& step) { on_its_way(step); });
    seen_ = scene_;
    moves_.visit([&](const Step& step) { see_at_target(step); });
    Arrangement arrangement(seen_, {.headroom = policy_.headroom, .load_max = policy_.load_max});
    for (std::uint32_t vm = 0; vm < scene_.vms.size(); ++vm) {
      const bool unmerged = !memory_.is_merged(vm, now_s_);
      if (seen_.vms[vm].host != kNowhere && unmerged) arrangement.unsettle(vm);
    }
    moves_.visit([&](const Step& step) { arrangement.unsettle(step.vm); });
    return arrangement;
  }

  void see_at_target(const Step& step) {
    SceneVm& vm = seen_.vms[step.vm];
    vm.demand.loads = converted(vm.demand.loads, step.source, step.target);
    vm.host = step.target;
  }

  void on_its_way(const Step& step) {
    scene_.vms[step.vm].why_fixed = scene_.vms[step.vm].name + " is being moved";
  }

  void describe(std::uint32_t number) {
    SceneVm& vm = scene_.vms[number];
    VmLife& life = lives_[number];
    if (life.state != VmLife::State::kHere) return;
    for (std::size_t i = 0; i < kLoads; ++i) {
      const UsageSeries& usage = life.usage.at(i);
      vm.demand.loads.at(i) = usage.size() > 0 ? provision(usage, 0) : life.now.at(i);
    }
    vm.why_fixed = by_rules_.vms[number].why_fixed;
    vm.demand.allowed = by_rules_.vms[number].demand.allowed;
    std::erase_if(life.left_s, [&](const auto& each) {
      return now_s_ - each.second >= std::max(policy_.return_after_s, kPingPongS);
    });
    for (const auto& [host, when] : life.left_s) {
      if (now_s_ - when >= policy_.return_after_s) continue;
      if (vm.demand.allowed.empty()) vm.demand.allowed.assign(scene_.hosts.size(), true);
      vm.demand.allowed[host] = false;
    }
    if (vm.host != kNowhere && !scene_.hosts[vm.host].is_up) {
      vm.why_fixed = scene_.hosts[vm.host].name + " is down";
    } else if (vm.why_fixed.empty() && clock(now_s_) < cooldowns_.until(vm.name)) {
      vm.why_fixed = vm.name + " was moved lately";
    }
  }

  static Deadline clock(double second) {
    return Deadline{} +
           std::chrono::duration_cast<Deadline::duration>(std::chrono::duration<double>(second));
  }

  void observe() {
    std::vector<Loads> loads(scene_.hosts.size());
    for (std::uint32_t vm = 0; vm < lives_.size(); ++vm) {
      if (lives_[vm].state != VmLife::State::kHere) continue;
      lives_[vm].now = loads_of(vm);
      const std::uint32_t host = scene_.vms[vm].host;
      memory_.note_merging(vm, now_s_, 2 * scenario_.interval_s);
      for (std::size_t i = 0; i < kLoads; ++i) {
        lives_[vm].usage.at(i).add(lives_[vm].now.at(i));
        if (host != kNowhere) loads[host].at(i) += lives_[vm].now.at(i);
      }
    }
    std::size_t overloaded = 0;
    for (std::uint32_t host = 0; host < scene_.hosts.size(); ++host) {
      const SceneHost& here = scene_.hosts[host];
      const double pages = memory_.pages(host, now_s_);
      const bool too_much = reports_.add(host, here.bin, loads[host], pages);
      overloaded += too_much && here.is_up ? 1U : 0U;
    }
    report_.overloaded_intervals += overloaded;
    report_.overloaded_first = std::max(report_.overloaded_first, overloaded);
    report_.overloaded_last = overloaded;
    if (overloaded > 0) last_overload_s_ = now_s_;
  }

  void decide() {
    if (!moves_.empty()) return;  // One plan at a time.
    std::vector<HotHost> hot = reports_.hot_hosts(scene_);
    const bool drains = std::any_of(scene_.hosts.begin(), scene_.hosts.end(),
                                    [](const SceneHost& host) { return host.leave; });
    const bool consolidates = policy_.consolidate_every_s > 0 && now_s_ > 0 &&
                              std::fmod(now_s_, policy_.consolidate_every_s) < scenario_.interval_s;
    const bool ruled = !scenario_.rules.empty();
    if (hot.empty() && !drains && !consolidates && !ruled) return;
    Arrangement arrangement = arrange();
    if (!hot.empty()) {
      take(relieve(arrangement, hot,
                   {.load_threshold = policy_.hotspot.threshold.front(),
                    .memory_threshold = policy_.hotspot.threshold.back(),
                    .moves_max = policy_.moves_max}));
    }
    if (!moves_.has_waiting() && (drains || ruled)) {
      take(repair(arrangement, scenario_.rules, policy_.moves_max));
    }
    if (!moves_.has_waiting() && consolidates) {
      Decision decision =
          consolidate(arrangement, reports_.mean_memory(),
                      {.low_memory = policy_.low_memory, .moves_max = policy_.moves_max});
      report_.hosts_freed += decision.freed_hosts.size();
      take(std::move(decision));
    }
  }

  void take(Decision decision) {
    for (Step& step : decision.steps) moves_.add(std::move(step));
    for (const Refusal& refusal : decision.refusals) {
      note(scene_.vms[refusal.vm].name + " stays: " + refusal.reason);
    }
  }

  void land() {
    for (const SimulatedMoves::Flight& flight : moves_.land(now_s_)) {
      record(flight);
      put(flight.step.vm, flight.step.target);
    }
  }

  void record(const SimulatedMoves::Flight& flight) {
    const Step& step = flight.step;
    VmLife& life = lives_[step.vm];
    const auto left = life.left_s.find(step.target);
    if (left != life.left_s.end() && now_s_ - left->second < kPingPongS) ++report_.ping_pongs;
    life.left_s[step.source] = now_s_;
    cooldowns_.moved(scene_.vms[step.vm].name, clock(now_s_));
    report_.bytes_moved += step.cost_pages * kPageSize;
    report_.moves.push_back({.started_s = flight.started_s,
                             .ended_s = now_s_,
                             .vm = scene_.vms[step.vm].name,
                             .source = scene_.hosts[step.source].name,
                             .target = scene_.hosts[step.target].name,
                             .reason = step.reason,
                             .bytes = step.cost_pages * kPageSize});
  }

  void finish() {
    report_.lies_left_out = reports_.lies_left_out();
    report_.cleared_at_s =
        report_.overloaded_last > 0 ? -1 : last_overload_s_ + scenario_.interval_s;
    if (report_.overloaded_intervals == 0) report_.cleared_at_s = 0;
    for (std::uint32_t host = 0; host < scene_.hosts.size(); ++host) {
      const std::vector<std::uint32_t>& vms = memory_.vms_on(host);
      if (vms.empty()) continue;
      ++report_.hosts_used;
      for (const std::uint32_t vm : vms) report_.shared_pages += scene_.vms[vm].full_pages;
      report_.shared_pages -= memory_.pages(host, now_s_);
    }
  }

  const Scenario& scenario_;
  const ScenarioPolicy& policy_;
  Random random_;
  PagePools pools_;
  Scene scene_;
  Scene by_rules_;  // As the rules made it: what describe() starts from.
  Scene seen_;
  std::map<std::uint32_t, std::uint32_t> start_on_;
  std::vector<VmLife> lives_;
  SimulatedReports reports_;
  SimulatedMemory memory_;
  Cooldowns cooldowns_;
  SimulatedMoves moves_;
  double now_s_ = 0;
  double last_overload_s_ = 0;
  SimulationReport report_;
};

}  // namespace

Result<SimulationReport> simulate(const Scenario& scenario) {
  if (!(scenario.interval_s > 0) || !(scenario.duration_s >= 0)) {
    return fail(Errc::kInvalid, "the interval and the duration must be above 0");
  }
  if (scenario.words == 0 || scenario.words > kPackWordsMax || !(scenario.pages_per_cell > 0)) {
    return fail(Errc::kInvalid, "the bitmaps of the pages have no possible size");
  }
  return Simulator(scenario).run();
}

}  // namespace samepage::placer
