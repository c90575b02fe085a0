#include "placer/batch_placement.h"

#include <cmath>
#include <numeric>

#include "placer/live_scene.h"

namespace samepage::placer {
namespace {

Result<void> check(const BatchRequest& request) {
  constexpr std::size_t kVmsMax = 100'000;
  const bool sound = request.count >= 1 && request.count <= kVmsMax && request.likeness >= 0 &&
                     request.likeness <= 1 && std::isfinite(request.cores) && request.cores >= 0;
  if (!sound) {
    return fail(Errc::kInvalid,
                "a batch has 1 to 100,000 VMs, a likeness from 0 to 1, and cores of 0 or more");
  }
  for (const auto& [host, warmth] : request.warmth) {
    if (!(warmth >= 0 && warmth <= 1)) {
      return fail(Errc::kInvalid, "the warmth of " + host + " is not from 0 to 1");
    }
  }
  if (request.like.empty() && request.memory_pages == 0) {
    return fail(Errc::kInvalid, "a batch needs the memory of each VM, or a VM that it is like");
  }
  return {};
}

// The cells of the pages that will be common: the first so many, the same for all of the batch.
SceneVm make_vm(const Scene& scene, const SceneVm* like, const BatchRequest& request) {
  SceneVm vm;
  vm.demand.cells.resize(scene.words);
  double common = 0;
  double pages = static_cast<double>(request.memory_pages);
  if (like != nullptr) {
    const double all = scene.pages(like->demand.cells);
    for (std::size_t w = 0; w < scene.words && common < request.likeness * all; ++w) {
      vm.demand.cells[w] = like->demand.cells[w];
      common = scene.pages(vm.demand.cells);
    }
    if (request.memory_pages == 0) pages = like->full_pages;
    vm.domain = like->domain;
  }
  vm.demand.own = std::max(0.0, pages - common);
  vm.full_pages = pages;
  vm.demand.loads[0] = request.cores;
  return vm;
}

}  // namespace

Result<BatchPlacement> place_batch(const Fleet& fleet, const BatchRequest& request,
                                   const PlanOptions& options) {
  TRY(check(request));
  // VMs that do not run yet can be named by rules, so they are in the scene before these apply.
  LiveScene live = TRY(make_live_scene(fleet, {.rules = {},
                                               .resting = {},
                                               .fingerprint_age_max = options.fingerprint_age_max,
                                               .class_models = options.class_models}));
  Scene& scene = live.scene;
  std::uint32_t like = kNowhere;
  if (!request.like.empty()) {
    const Vm* const named = TRY(fleet.named(request.like));
    like = static_cast<std::uint32_t>(named - fleet.vms.data());
  }
  const SceneVm made = make_vm(scene, like == kNowhere ? nullptr : &scene.vms[like], request);
  const auto first = static_cast<std::uint32_t>(scene.vms.size());
  for (std::size_t i = 0; i < request.count; ++i) {
    scene.vms.push_back(made);
    scene.vms.back().name = request.name + std::to_string(i + 1);
    scene.vms.back().id = scene.vms.back().name;
  }
  for (SceneHost& host : scene.hosts) {
    const auto warmth = request.warmth.find(host.name);
    if (warmth != request.warmth.end()) host.warmth = warmth->second;
  }
  TRY(apply_rules(options.rules, scene));

  Arrangement arrangement(scene, {.headroom = options.headroom, .load_max = options.load_max});
  unsettle_unmerged(fleet, arrangement);
  PlacementRequest placement{.vms = std::vector<std::uint32_t>(request.count),
                             .goal = request.goal};
  std::iota(placement.vms.begin(), placement.vms.end(), first);
  const InitialPlacement placed = place(arrangement, placement);

  BatchPlacement answer{.hosts = std::vector<std::string>(request.count),
                        .peak = placed.peak,
                        .peak_bound = placed.peak_bound};
  for (const Step& step : placed.decision.steps) {
    if (step.vm >= first) answer.hosts[step.vm - first] = scene.hosts[step.target].name;
  }
  for (const Refusal& refusal : placed.decision.refusals) answer.refusals.push_back(refusal.reason);
  return answer;
}

}  // namespace samepage::placer
