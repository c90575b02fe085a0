#include "tools/benchmarks/placement_fleet.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <ctime>
#include <ostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "core/page_count.h"
#include "placer/packing/bound.h"
#include "placer/packing/fleet_packer.h"
#include "placer/packing/least_movement.h"
#include "placer/packing/page_pools.h"
#include "placer/packing/random.h"
#include "placer/packing/sharing_index.h"

namespace samepage::bench {
namespace {

using nlohmann::json;
using placer::Packing;
using placer::PackItem;
using placer::PackProblem;

constexpr double kPagesPerGib = 1024 * kPagesPerMib;
constexpr double kPagesPerCell = 16 * kPagesPerMib;
constexpr std::size_t kWords = 64;
constexpr double kHostPages = 64 * kPagesPerGib;
constexpr placer::Loads kHostLoads{48, 3e9, 3e9};

struct Sort {
  const char* name;
  double shared;  ///< Part of the memory that it has in common with others of the sort.
  double cores;
};
constexpr std::array kSorts{Sort{"tpcw", 0.41, 0.8}, Sort{"ofbiz", 0.22, 0.6},
                            Sort{"rubis", 0.15, 0.5}, Sort{"specjbb", 0.05, 1.2}};

double memory_pages(placer::Random& random) {
  const double luck = random.unit();
  const double gib = luck < 0.35 ? 2 : luck < 0.65 ? 4 : luck < 0.9 ? 8 : 16;
  return gib * kPagesPerGib * (0.8 + 0.3 * random.unit());
}

PackItem make_vm(std::size_t versions, placer::PagePools& pools, placer::Random& random) {
  constexpr std::size_t kSystems = 6;
  constexpr double kSystemPart = 0.08;
  const Sort& sort = kSorts.at(random.below(kSorts.size()));
  const std::string version = std::to_string(random.below(versions));
  const double pages = memory_pages(random);
  PackItem vm;
  const std::string application = sort.name + version;
  const std::size_t system = std::hash<std::string>()(application) % kSystems;
  pools.add("system" + std::to_string(system), kSystemPart * pages, vm);
  pools.add(application, sort.shared * pages, vm);
  vm.own += (1 - kSystemPart - sort.shared) * pages;
  vm.loads = {sort.cores * (0.5 + random.unit()), 2e7 * random.unit(), 2e7 * random.unit()};
  return vm;
}

// What a scheduler without fingerprints does: the tightest host by size, in order of arrival.
std::vector<std::uint32_t> place_by_size(const PackProblem& problem) {
  std::vector<double> free(problem.bins.size(), kHostPages);
  std::vector<std::uint32_t> hosts(problem.items.size(), placer::kNowhere);
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    double pages = problem.items[i].own;
    for (const std::uint64_t word : problem.items[i].cells) {
      pages += kPagesPerCell * static_cast<double>(std::popcount(word));
    }
    for (std::uint32_t host = 0; host < free.size(); ++host) {
      const bool tighter = hosts[i] == placer::kNowhere || free[host] < free[hosts[i]];
      if (free[host] >= pages && tighter) hosts[i] = host;
    }
    if (hosts[i] != placer::kNowhere) free[hosts[i]] -= pages;
  }
  return hosts;
}

double ms_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

// What this thread computed, whoever else wanted the processor meanwhile.
double cpu_us() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  constexpr double kUsPerS = 1e6;
  constexpr double kUsPerNs = 1e-3;
  return static_cast<double>(time.tv_sec) * kUsPerS + static_cast<double>(time.tv_nsec) * kUsPerNs;
}

double peak_rss_mib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  constexpr double kKibPerMib = 1024;
  return static_cast<double>(usage.ru_maxrss) / kKibPerMib;
}

double quantile(std::vector<double>& values, double part) {
  std::sort(values.begin(), values.end());
  return values.at(static_cast<std::size_t>(part * static_cast<double>(values.size() - 1)));
}

}  // namespace

MadeFleet make_fleet(const FleetRun& run) {
  placer::Random random(run.seed);
  placer::PagePools pools(kWords, kPagesPerCell);
  MadeFleet fleet;
  fleet.problem.words = kWords;
  fleet.problem.pages_of_cells = pools.pages_of_cells();
  fleet.problem.bins.assign(run.hosts, {.capacity = kHostPages, .loads = kHostLoads});
  const std::size_t versions = std::clamp<std::size_t>(run.vms / 1'000, 1, 6);
  for (std::size_t i = 0; i < run.vms; ++i) {
    fleet.problem.items.push_back(make_vm(versions, pools, random));
  }
  fleet.now = place_by_size(fleet.problem);
  return fleet;
}

Result<void> run_fleet(const FleetRun& run, std::ostream& out) {
  const MadeFleet fleet = make_fleet(run);
  const std::size_t bound = placer::bins_bound(fleet.problem);
  const auto begin = std::chrono::steady_clock::now();
  Packing packing =
      placer::pack_fleet(fleet.problem, {.budget = std::chrono::milliseconds(run.budget_ms),
                                         .seed = run.seed,
                                         .threads = run.threads,
                                         .bins_enough = bound});
  const std::size_t moves = placer::match_bins(fleet.problem, fleet.now, packing);
  const double took_ms = ms_since(begin);
  const std::string fault = placer::find_fault(fleet.problem, packing);
  if (!fault.empty()) return fail(Errc::kIo, fault);

  std::vector<std::uint32_t> used = fleet.now;
  std::sort(used.begin(), used.end());
  const auto end = std::unique(used.begin(), used.end());
  out << json{{"hosts", run.hosts},
              {"vms", run.vms},
              {"plan_ms", took_ms},
              {"hosts_used_before", std::distance(used.begin(), end)},
              {"hosts_used", packing.bins_used},
              {"left_out", packing.left_out},
              {"lower_bound", bound},
              {"gap_pct",
               100.0 * (static_cast<double>(packing.bins_used) / static_cast<double>(bound) - 1)},
              {"moves", moves},
              {"rounds", packing.rounds},
              {"peak_rss_mib", peak_rss_mib()}}
             .dump()
      << '\n';
  return {};
}

Result<void> run_index(const FleetRun& run, std::size_t queries, std::ostream& out) {
  const MadeFleet fleet = make_fleet(run);
  placer::SharingIndex index(kWords, run.hosts);
  std::vector<std::vector<std::uint64_t>> hosts(run.hosts, std::vector<std::uint64_t>(kWords));
  for (std::size_t i = 0; i < run.vms; ++i) {
    if (fleet.now[i] == placer::kNowhere) continue;
    for (std::size_t w = 0; w < kWords; ++w)
      hosts[fleet.now[i]][w] |= fleet.problem.items[i].cells[w];
  }
  for (std::size_t host = 0; host < run.hosts; ++host) index.set(host, hosts[host]);

  placer::Random random(run.seed + 1);
  std::vector<std::uint16_t> counts;
  std::vector<double> took_us;
  std::vector<double> took_cpu_us;
  std::size_t best_sum = 0;  // Keeps the compiler from leaving the answer out.
  for (std::size_t i = 0; i < queries; ++i) {
    const PackItem& vm = fleet.problem.items[random.below(run.vms)];
    const double begin_cpu_us = cpu_us();
    const auto begin = std::chrono::steady_clock::now();
    index.count_common(vm.cells, counts);
    const auto best = std::max_element(counts.begin(), counts.end());
    took_us.push_back(ms_since(begin) * 1'000);
    took_cpu_us.push_back(cpu_us() - begin_cpu_us);
    best_sum += *best;
  }
  out << json{{"hosts", run.hosts},
              {"queries", queries},
              {"query_us_p50", quantile(took_us, 0.5)},
              {"query_us_p99", quantile(took_us, 0.99)},
              {"query_cpu_us_p99", quantile(took_cpu_us, 0.99)},
              {"common_cells", best_sum / queries}}
             .dump()
      << '\n';
  return {};
}

}  // namespace samepage::bench
