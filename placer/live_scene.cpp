#include "placer/live_scene.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "fingerprinter/fingerprint.h"
#include "placer/explain.h"
#include "placer/prospects.h"
#include "placer/sharing.h"

namespace samepage::placer {
namespace {

using fingerprinter::Sketch;

constexpr double kUnlimited = 1e18;  // A link or a disk of unknown speed.
constexpr double kFillMax = 1.5;     // Hashes a cell, of the fullest host.
constexpr std::size_t kCellsMin = 64;
constexpr std::size_t kWordsStep = 8;  // packing/wide_cells.h

// A large fleet has coarser bitmaps, so that comparing a VM with all its hosts stays cheap.
constexpr std::size_t kWordsOfLargeFleet = 128;

/// How the sketches of a fleet are laid out in one bitmap: a part for each band, the first whole,
/// each further one folded once more, so that all are equally dense.
class Layout {
 public:
  Layout(const std::vector<const Vm*>& vms, double fullest, std::size_t hosts)
      : shape_(smallest_shape(vms, hosts)) {
    while (first_ + 1 < Sketch::kBands - 1 && load(first_, fullest) > kFillMax) ++first_;
    std::size_t cells = shape_.cells;
    for (std::size_t band = first_; band < Sketch::kBands - 1 && cells >= kCellsMin; ++band) {
      parts_.push_back(cells);
      cells_ += cells;
      sampled_ += shape_.share(band);
      if (cells % 128 != 0) break;  // The next would not be whole words.
      cells /= 2;
    }
  }

  std::size_t words() const { return (cells_ / 64 + kWordsStep - 1) / kWordsStep * kWordsStep; }
  double sampled() const { return sampled_; }
  double cells() const { return static_cast<double>(cells_); }

  std::vector<double> table() const {
    std::vector<double> pages;
    for (std::size_t set = 0; set <= words() * 64; ++set) {
      const double empty = std::max(cells() - static_cast<double>(set), 0.5) / cells();
      pages.push_back(-cells() / sampled_ * std::log(empty));
    }
    return pages;
  }

  // Each domain turns its cells by an offset of its own: whatever their seeds, VMs of two domains
  // meet by chance only.
  std::vector<std::uint64_t> bitmap(const Sketch& sketch, const std::string& domain) const {
    const std::size_t turn = std::hash<std::string>()(domain);
    const unsigned finer = sketch.shape().resolution - shape_.resolution;
    std::vector<std::uint64_t> bits(words());
    std::size_t begin = 0;
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      const std::span<const std::uint64_t> band = sketch.band(first_ + part);
      for (std::size_t w = 0; w < band.size(); ++w) {
        for (std::uint64_t rest = band[w]; rest != 0; rest &= rest - 1) {
          const std::size_t fine = w * 64 + static_cast<std::size_t>(std::countr_zero(rest));
          const std::size_t cell = fine >> finer;
          if (cell >= shape_.cells) break;
          const std::size_t bit = begin + ((cell >> part) + turn) % parts_[part];
          bits[bit / 64] |= std::uint64_t{1} << (bit % 64);
        }
      }
      begin += parts_[part];
    }
    return bits;
  }

 private:
  // All bands together have twice the cells of one.
  static Sketch::Shape smallest_shape(const std::vector<const Vm*>& vms, std::size_t hosts) {
    const std::size_t cells = 32 * (hosts > Prospects::kAll ? kWordsOfLargeFleet : kPackWordsMax);
    Sketch::Shape shape{.resolution = static_cast<unsigned>(std::countr_zero(cells)),
                        .cells = cells};
    for (const Vm* vm : vms) shape = Sketch::common(shape, vm->fingerprint->sketch().shape());
    return shape;
  }

  double load(std::size_t band, double pages) const {
    return pages * shape_.share(band) / static_cast<double>(shape_.cells);
  }

  Sketch::Shape shape_;
  std::size_t first_ = 0;
  std::vector<std::size_t> parts_;  // Cells, by band from the first on.
  std::size_t cells_ = 0;
  double sampled_ = 0;
};

bool is_fresh(const Vm& vm, const LiveSceneOptions& options) {
  return vm.fingerprint != nullptr && vm.fingerprint_age <= options.fingerprint_age_max;
}

std::string why_fixed(const Host& host, const Vm& vm, const LiveSceneOptions& options) {
  if (host.state != HostState::kUp) return vm.host + " is down";
  if (vm.runs_twice) return vm.name + " runs on " + vm.host + " and on " + vm.copy_on + " at once";
  if (!vm.copy_on.empty()) {
    return vm.name + " has a copy on " + vm.copy_on + ": a migration goes on, or left it there";
  }
  if (vm.state == VmState::kPaused) return vm.name + " is paused";
  if (vm.state != VmState::kRunning) return vm.name + " does not run";
  if (vm.fingerprint == nullptr) return vm.name + " has no fingerprint yet";
  if (!is_fresh(vm, options)) {
    return "the fingerprint of " + vm.name + " is " + age_text(vm.fingerprint_age) + " old (" +
           age_text(options.fingerprint_age_max) + " is the limit)";
  }
  const auto resting = options.resting.find(vm.id.uuid);
  return resting == options.resting.end() ? std::string() : resting->second;
}

SceneHost host_of(const Host& host) {
  SceneHost made;
  made.name = host.name;
  made.bin.capacity = static_cast<double>(host.capacity_pages);
  const double link = host.link_bytes_s > 0 ? host.link_bytes_s : kUnlimited;
  made.bin.loads = {static_cast<double>(host.cpus), link, kUnlimited};
  made.hardware = host.hardware;
  made.is_up = host.state == HostState::kUp;
  return made;
}

SceneVm vm_of(const Host& host, const Vm& vm, const LiveSceneOptions& options) {
  SceneVm made;
  made.id = vm.id.uuid;
  made.name = vm.name;
  made.domain = vm.sharing_domain;
  made.why_fixed = why_fixed(host, vm, options);
  made.full_pages = static_cast<double>(own_pages(vm));
  for (std::size_t i = 0; i < kLoads && vm.usage != nullptr; ++i) {
    const double share_max = i == 0 ? static_cast<double>(vm.vcpus) : 0;
    made.demand.loads.at(i) = provision(vm.usage->series.at(i), share_max);
  }
  return made;
}

std::optional<Layout> layout_of(const Fleet& fleet, const LiveSceneOptions& options) {
  std::vector<const Vm*> scanned;
  double all = 0;
  for (const Vm& vm : fleet.vms) {
    if (!is_fresh(vm, options)) continue;
    scanned.push_back(&vm);
    all += static_cast<double>(vm.fingerprint->counts().unique);
  }
  if (scanned.empty()) return std::nullopt;
  double largest = 0;
  for (const Host& host : fleet.hosts) {
    largest = std::max(largest, static_cast<double>(host.capacity_pages));
  }
  return Layout(scanned, std::min(all, largest), fleet.hosts.size());
}

void put_memory(const Vm& vm, const std::optional<Layout>& layout, const LiveSceneOptions& options,
                SceneVm& made) {
  if (!is_fresh(vm, options)) {
    made.demand.own = static_cast<double>(vm.memory_pages);
    made.full_pages = made.demand.own;
    return;
  }
  made.demand.own = static_cast<double>(vm.fingerprint->counts().unsettled);
  made.demand.cells = layout->bitmap(vm.fingerprint->sketch(), vm.sharing_domain);
}

/// Frames that the agent counted beyond what its VMs, of `full` pages, can account for.
double overhead_of(const Host& host, double full) {
  constexpr double kPartMax = 0.5;
  if (!host.memory || !host.memory_is_of_now) return 0;
  const double beyond = static_cast<double>(host.memory->distinct_frames) - full;
  return std::clamp(beyond, 0.0, kPartMax * static_cast<double>(host.capacity_pages));
}

// A label stands for the hosts that have it.
std::vector<Rule> look_up_labels(const Fleet& fleet, std::vector<Rule> rules) {
  for (Rule& rule : rules) {
    std::vector<std::string> hosts;
    for (const std::string& name : rule.hosts) {
      const std::size_t equals = name.find('=');
      if (equals == std::string::npos) {
        hosts.push_back(name);
        continue;
      }
      const std::size_t before = hosts.size();
      for (const Host& host : fleet.hosts) {
        const auto label = host.labels.find(name.substr(0, equals));
        if (label != host.labels.end() && label->second == name.substr(equals + 1)) {
          hosts.push_back(host.name);
        }
      }
      if (hosts.size() == before) hosts.push_back(name);  // Noted as not there.
    }
    rule.hosts = std::move(hosts);
  }
  return rules;
}

}  // namespace

Result<LiveScene> make_live_scene(const Fleet& fleet, const LiveSceneOptions& options) {
  LiveScene live;
  Scene& scene = live.scene;
  const std::optional<Layout> layout = layout_of(fleet, options);
  scene.words = layout ? layout->words() : kWordsStep;
  scene.pages_of_cells = layout ? layout->table() : PackProblem::linear(scene.words, 1);
  scene.sampled = layout ? layout->sampled() : 1;
  scene.cells_in_use = layout ? layout->cells() : 0;
  std::map<std::string, std::uint32_t, std::less<>> host_numbers;
  for (const Host& host : fleet.hosts) {
    host_numbers.emplace(host.name, static_cast<std::uint32_t>(scene.hosts.size()));
    scene.hosts.push_back(host_of(host));
  }
  for (const Vm& vm : fleet.vms) {
    const std::uint32_t number = host_numbers.at(vm.host);
    SceneVm made = vm_of(fleet.hosts[number], vm, options);
    made.host = number;
    put_memory(vm, layout, options, made);
    made.demand.cells.resize(scene.words);
    scene.vms.push_back(std::move(made));
  }
  scene.class_models = options.class_models;
  live.rules = look_up_labels(fleet, options.rules);
  live.notes = TRY(apply_rules(live.rules, scene));
  std::vector<double> full(scene.hosts.size());
  for (const SceneVm& vm : scene.vms) full[vm.host] += vm.full_pages;
  for (std::size_t host = 0; host < fleet.hosts.size(); ++host) {
    scene.hosts[host].bin.capacity -= overhead_of(fleet.hosts[host], full[host]);
  }
  const std::string fault = find_scene_fault(scene);
  if (!fault.empty()) return fail(Errc::kInvalid, fault);
  return live;
}

void unsettle_unmerged(const Fleet& fleet, Arrangement& arrangement) {
  constexpr double kTolerance = 0.98;
  for (std::uint32_t host = 0; host < fleet.hosts.size(); ++host) {
    const std::optional<HostMemory>& memory = fleet.hosts[host].memory;
    if (!memory || !fleet.hosts[host].memory_is_of_now) continue;
    const auto counted = static_cast<double>(memory->distinct_frames);
    const std::vector<std::uint32_t> residents = arrangement.on(host);
    for (const std::uint32_t vm : residents) {
      if (arrangement.arriving(host) >= kTolerance * counted) break;
      arrangement.unsettle(vm);
    }
  }
}

}  // namespace samepage::placer
