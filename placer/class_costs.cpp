#include "placer/class_costs.h"

#include <algorithm>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

std::string amount(Resource resource, double load) {
  constexpr double kMb = 1e6;
  if (resource == Resource::kCpu) return fmt::format("{:.2f} cores", load);
  return fmt::format("{:.1f} MB/s of {}", load / kMb, to_string(resource));
}

}  // namespace

ClassCosts::ClassCosts(const Scene& scene) : scene_(&scene) {
  if (scene.class_models.empty()) return;
  std::map<std::string, std::uint32_t> numbers;
  for (const SceneHost& host : scene.hosts) {
    const auto number = static_cast<std::uint32_t>(numbers.size());
    class_of_.push_back(numbers.try_emplace(host.hardware, number).first->second);
  }
  classes_ = static_cast<std::uint32_t>(numbers.size());
  for (const ClassModel& model : scene.class_models) {
    const auto source = numbers.find(model.source);
    const auto target = numbers.find(model.target);
    if (source == numbers.end() || target == numbers.end()) continue;
    models_[{source->second, target->second}].push_back(&model);
  }
}

Loads ClassCosts::in_class(std::uint32_t vm, std::uint32_t target) const {
  const SceneVm& info = scene_->vms[vm];
  Loads loads = info.demand.loads;
  if (info.host == kNowhere) return loads;
  const auto found = models_.find({class_of_[info.host], target});
  if (found == models_.end()) return loads;
  for (const ClassModel* model : found->second) {
    loads.at(static_cast<std::size_t>(model->of)) = predict(*model, info.demand.loads);
  }
  return loads;
}

Loads ClassCosts::on(std::uint32_t vm, std::uint32_t host) const {
  return any() ? in_class(vm, class_of_[host]) : scene_->vms[vm].demand.loads;
}

template <class Choose>
Loads ClassCosts::over_classes(std::uint32_t vm, Choose choose) const {
  Loads chosen = scene_->vms[vm].demand.loads;
  for (std::uint32_t target = 0; any() && target < classes_; ++target) {
    const Loads there = in_class(vm, target);
    for (std::size_t i = 0; i < kLoads; ++i) chosen.at(i) = choose(chosen.at(i), there.at(i));
  }
  return chosen;
}

Loads ClassCosts::most(std::uint32_t vm) const {
  return over_classes(vm, [](double a, double b) { return std::max(a, b); });
}

Loads ClassCosts::least(std::uint32_t vm) const {
  return over_classes(vm, [](double a, double b) { return std::min(a, b); });
}

std::string ClassCosts::describe(std::uint32_t vm, std::uint32_t host) const {
  const SceneVm& info = scene_->vms[vm];
  if (!any() || info.host == kNowhere) return {};
  const auto found = models_.find({class_of_[info.host], class_of_[host]});
  if (found == models_.end()) return {};
  std::string text;
  for (const ClassModel* model : found->second) {
    text += fmt::format(
        "{}{} is counted with {} on {} instead of {} (overhead model {}, {:.1f} % "
        "median error)",
        text.empty() ? "" : ", and ", info.name,
        amount(model->of, predict(*model, info.demand.loads)), scene_->hosts[host].name,
        amount(model->of, info.demand.loads.at(static_cast<std::size_t>(model->of))), model->id,
        model->median_error_pct);
  }
  return text;
}

}  // namespace samepage::placer
