#include "tools/benchmarks/placement_plan.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "fingerprinter/fingerprint.h"
#include "placer/in_parallel.h"
#include "placer/packing/random.h"
#include "placer/planner.h"

namespace samepage::bench {
namespace {

using fingerprinter::Fingerprint;
using fingerprinter::PageCounts;
using fingerprinter::Sketch;
using nlohmann::json;
using placer::Fleet;
using placer::Random;

constexpr double kPagesPerGib = 1024 * 256;
constexpr std::uint64_t kHostPages = 64ULL * 1024 * 256;
constexpr unsigned kHostCpus = 48;
constexpr double kSystemPart = 0.08;
constexpr std::size_t kSystems = 6;
constexpr std::size_t kVersions = 6;
constexpr std::array kGib{2.0, 4.0, 8.0, 16.0};
constexpr std::array kShares{0.35, 0.30, 0.25, 0.10};
constexpr std::array kFullness{0.8, 0.9, 1.0, 1.1};

struct Sort {
  double shared = 0;  ///< Part of the memory that VMs of the sort and version have in common.
  double cores = 0;
};
constexpr std::array kSorts{Sort{0.41, 0.8}, Sort{0.22, 0.6}, Sort{0.15, 0.5}, Sort{0.05, 1.2}};

/// What a VM runs, and how large it is.
struct Kind {
  std::size_t sort = 0;
  std::size_t version = 0;
  double pages = 0;
  double of_system = kSystemPart;
  double of_application = 0;

  std::size_t application() const { return sort * kVersions + version; }
  std::size_t system() const { return application() % kSystems; }
  auto key() const { return std::tuple(application(), pages); }
};

Kind draw_kind(double shared, Random& random) {
  Kind kind{.sort = random.below(kSorts.size()), .version = random.below(kVersions)};
  kind.of_application = shared < 0 ? kSorts.at(kind.sort).shared : shared;
  if (shared >= 0) kind.of_system = 0;
  double luck = random.unit();
  std::size_t size = 0;
  while (size + 1 < kGib.size() && luck >= kShares.at(size)) luck -= kShares.at(size++);
  kind.pages =
      std::floor(kGib.at(size) * kFullness.at(random.below(kFullness.size())) * kPagesPerGib);
  return kind;
}

Sketch::Shape shape_of(const Kind& kind) {
  const auto unique = static_cast<std::uint64_t>(kind.pages);
  return Sketch::shape_for(unique, Fingerprint::bytes_for(unique));
}

void add_pool(std::uint64_t pool, double pages, Sketch& sketch) {
  Random hashes(pool * 0x9E3779B97F4A7C15U);
  for (double i = 0; i < pages; ++i) sketch.add(PageHash{hashes.next()});
}

/// The pages that VMs of one kind have in common with others, by kind: the first so many of their
/// application's and of their system's.
using CommonParts = std::map<std::tuple<std::size_t, double>, Sketch>;

CommonParts make_common_parts(const std::vector<Kind>& kinds, unsigned threads) {
  CommonParts parts;
  std::vector<Kind> distinct;
  for (const Kind& kind : kinds) {
    if (parts.try_emplace(kind.key(), shape_of(kind)).second) distinct.push_back(kind);
  }
  // In threads' chunks of one: each is work for tens of milliseconds.
  std::vector<std::vector<Kind>> of_thread(threads);
  for (std::size_t i = 0; i < distinct.size(); ++i) of_thread[i % threads].push_back(distinct[i]);
  std::vector<std::jthread> workers;
  for (const std::vector<Kind>& mine : of_thread) {
    workers.emplace_back([&parts, &mine] {
      for (const Kind& kind : mine) {
        Sketch& sketch = parts.find(kind.key())->second;
        add_pool(1'000 + kind.system(), kind.of_system * kind.pages, sketch);
        add_pool(1 + kind.application(), kind.of_application * kind.pages, sketch);
      }
    });
  }
  workers.clear();
  return parts;
}

/// 64 bits, each set with the probability, to ten binary places.
std::uint64_t random_word(double probability, Random& random) {
  constexpr unsigned kPlaces = 10;
  auto digits = static_cast<unsigned>(std::lround(std::ldexp(probability, kPlaces)));
  std::uint64_t word = 0;
  for (unsigned i = 0; i < kPlaces; ++i, digits >>= 1U) {
    word = (digits & 1U) != 0 ? word | random.next() : word & random.next();
  }
  return word;
}

// Pages that nobody else has, as if so many random hashes had been added one by one.
void add_own(double pages, Random& random, Sketch& sketch) {
  constexpr double kSparse = 0.05;
  const auto cells = static_cast<double>(sketch.shape().cells);
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const double hashes = pages * sketch.shape().share(i);
    const auto band = sketch.band(i);
    if (hashes / cells < kSparse) {
      for (double left = hashes - random.unit(); left > 0; --left) {
        const std::uint32_t cell = random.below(sketch.shape().cells);
        band[cell / 64] |= std::uint64_t{1} << (cell % 64);
      }
      continue;
    }
    const double set = -std::expm1(-hashes / cells);
    for (std::uint64_t& word : band) word |= random_word(set, random);
  }
}

Fingerprint fingerprint_of(const Kind& kind, const CommonParts& parts, Random& random) {
  Sketch sketch = parts.find(kind.key())->second;
  const double common = (kind.of_system + kind.of_application) * kind.pages;
  add_own(kind.pages - common, random, sketch);
  const auto unique = static_cast<std::uint64_t>(kind.pages);
  return {PageCounts{.pages = unique, .unique = unique}, std::move(sketch)};
}

std::shared_ptr<const placer::VmUsage> usage_of(const Kind& kind, Random& random) {
  auto usage = std::make_shared<placer::VmUsage>();
  const double cores = kSorts.at(kind.sort).cores * (0.5 + random.unit());
  for (int i = 0; i < 5; ++i) usage->series.front().add(cores * (0.9 + 0.2 * random.unit()));
  return usage;
}

// What a scheduler without fingerprints does: the tightest host by size, in order of arrival.
std::vector<std::size_t> place_by_size(const std::vector<Kind>& kinds, std::size_t hosts) {
  std::vector<double> free(hosts, static_cast<double>(kHostPages));
  std::vector<std::size_t> placed;
  for (const Kind& kind : kinds) {
    std::size_t best = hosts;
    for (std::size_t host = 0; host < hosts; ++host) {
      if (free[host] >= kind.pages && (best == hosts || free[host] < free[best])) best = host;
    }
    placed.push_back(best);
    if (best < hosts) free[best] -= kind.pages;
  }
  return placed;
}

Fleet make_fleet(const PlanRun& run) {
  Random random(run.seed);
  std::vector<Kind> kinds(run.vms);
  for (Kind& kind : kinds) kind = draw_kind(run.shared, random);
  const CommonParts parts = make_common_parts(kinds, run.threads);
  const std::vector<std::size_t> placed = place_by_size(kinds, run.hosts);
  Fleet fleet;
  for (std::size_t i = 0; i < run.hosts; ++i) {
    placer::Host host;
    host.name = fmt::format("host{:05}", i);
    host.state = placer::HostState::kUp;
    host.capacity_pages = kHostPages;
    host.cpus = kHostCpus;
    fleet.hosts.push_back(std::move(host));
  }
  std::vector<placer::Vm> vms(run.vms);
  placer::in_parallel(run.threads, run.vms, [&](std::size_t i) {
    if (placed[i] == run.hosts) return;
    Random luck(run.seed + 1 + i);
    placer::Vm& vm = vms[i];
    vm.name = fmt::format("vm{:06}", i);
    vm.id = VmId{"uuid-" + vm.name};
    vm.host = fleet.hosts[placed[i]].name;
    vm.state = VmState::kRunning;
    vm.memory_pages = static_cast<std::uint64_t>(kinds[i].pages);
    vm.vcpus = 4;
    vm.sharing_domain = "default";
    vm.fingerprint = std::make_shared<const Fingerprint>(fingerprint_of(kinds[i], parts, luck));
    vm.fingerprint_age = std::chrono::seconds(30);
    vm.usage = usage_of(kinds[i], luck);
  });
  for (placer::Vm& vm : vms) {
    if (!vm.host.empty()) fleet.vms.push_back(std::move(vm));
  }
  return fleet;
}

// Of all threads, whoever else wanted the processors meanwhile.
double cpu_s() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  constexpr double kSPerNs = 1e-9;
  return static_cast<double>(time.tv_sec) + kSPerNs * static_cast<double>(time.tv_nsec);
}

double peak_rss_mib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  constexpr double kKibPerMib = 1024;
  return static_cast<double>(usage.ru_maxrss) / kKibPerMib;
}

// A VM that waits on a third host is in the moves twice.
Result<void> check(const Fleet& fleet, const placer::Plan& plan) {
  std::set<std::string> moved;
  for (const placer::PlannedMove& move : plan.moves) moved.insert(move.name);
  std::set<std::string> stays;
  for (const placer::Stay& stay : plan.stays) {
    const bool is_new = stays.insert(stay.name).second;
    if (!is_new || moved.contains(stay.name) || stay.reason.empty()) {
      return fail(Errc::kIo, stay.name + " stays and moves, or stays without a reason");
    }
  }
  if (moved.size() + stays.size() == fleet.vms.size()) return {};
  return fail(Errc::kIo, "not every VM is in the plan");
}

}  // namespace

Result<void> run_plan(const PlanRun& run, std::ostream& out) {
  using Clock = std::chrono::steady_clock;
  const Fleet fleet = make_fleet(run);
  const double fleet_mib = peak_rss_mib();
  const auto begin = Clock::now();
  const double begin_cpu_s = cpu_s();
  const placer::Plan plan =
      TRY(placer::plan(fleet, {.goal = run.goal,
                               .moves_max = run.moves_max,
                               .search = std::chrono::milliseconds(run.search_ms),
                               .seed = run.seed,
                               .threads = run.threads}));
  const std::chrono::duration<double> took = Clock::now() - begin;
  const double took_cpu_s = cpu_s() - begin_cpu_s;
  TRY(check(fleet, plan));
  json found{{"hosts", run.hosts},
             {"vms", fleet.vms.size()},
             {"goal", placer::to_string(run.goal)},
             {"plan_s", took.count()},
             {"plan_cpu_s", took_cpu_s},
             {"hosts_before", plan.hosts_before},
             {"hosts_after", plan.hosts_after},
             {"moves", plan.moves.size()},
             {"stays", plan.stays.size()},
             {"shared_before_gib", static_cast<double>(plan.shared_before_pages) / kPagesPerGib},
             {"shared_after_gib", static_cast<double>(plan.shared_after_pages) / kPagesPerGib},
             {"fleet_rss_mib", fleet_mib},
             {"peak_rss_mib", peak_rss_mib()}};
  if (plan.hosts_packed > 0) {
    found["hosts_packed"] = plan.hosts_packed;
    found["lower_bound"] = plan.hosts_bound;
    found["gap_pct"] =
        100.0 *
        (static_cast<double>(plan.hosts_packed) / static_cast<double>(plan.hosts_bound) - 1);
  }
  out << found.dump() << '\n';
  return {};
}

}  // namespace samepage::bench
