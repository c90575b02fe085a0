#include "tools/benchmarks/placement_pagination.h"

#include <array>
#include <chrono>
#include <istream>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "placer/packing/bound.h"
#include "placer/packing/packer.h"

namespace samepage::bench {
namespace {

using nlohmann::json;
using placer::Heuristic;
using placer::Packing;
using placer::PackProblem;

constexpr std::size_t kWords = 2;
constexpr std::size_t kItemsMax = 10'000;

struct Instance {
  std::string name;
  PackProblem problem;
};

Result<Instance> parse(const std::string& line) {
  std::istringstream words(line);
  Instance instance;
  double capacity = 0;
  std::size_t items = 0;
  if (!(words >> instance.name >> capacity >> items) || items > kItemsMax) {
    return fail(Errc::kInvalid, "no instance: " + line.substr(0, 80));
  }
  PackProblem& problem = instance.problem;
  problem.words = kWords;
  problem.pages_of_cells = PackProblem::linear(kWords, 1);
  problem.bins.assign(items, {.capacity = capacity, .loads = {}});
  for (std::size_t i = 0; i < items; ++i) {
    placer::PackItem item;
    item.cells.resize(kWords);
    std::size_t count = 0;
    words >> count;
    for (std::size_t s = 0; s < count; ++s) {
      std::size_t symbol = 0;
      if (!(words >> symbol) || symbol >= kWords * 64) {
        return fail(Errc::kInvalid, instance.name + ": a symbol is missing or too large");
      }
      item.cells.at(symbol / 64) |= std::uint64_t{1} << (symbol % 64);
    }
    problem.items.push_back(std::move(item));
  }
  return instance;
}

template <class Solve>
Result<json> measure(const Instance& instance, const Solve& solve) {
  const auto begin = std::chrono::steady_clock::now();
  const Packing packing = solve();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const std::string fault = placer::find_fault(instance.problem, packing);
  if (!fault.empty() || packing.left_out > 0) {
    return fail(Errc::kIo, instance.name + ": " + (fault.empty() ? "items left out" : fault));
  }
  return json{{"name", instance.name},
              {"bins", packing.bins_used},
              {"ms", took.count() * 1e3},
              {"rounds", packing.rounds},
              {"bin_of", packing.bin_of}};
}

Result<json> by_heuristics(const Instance& instance) {
  constexpr std::array kHeuristics{
      std::pair(Heuristic::kFirstFit, "first_fit"),
      std::pair(Heuristic::kBestFitBySize, "best_fit_by_size"),
      std::pair(Heuristic::kBestFusion, "best_fusion"),
      std::pair(Heuristic::kMemoryBuddies, "memory_buddies"),
  };
  json found{{"name", instance.name}};
  for (const auto& [heuristic, name] : kHeuristics) {
    const json one = TRY(measure(
        instance, [&, which = heuristic] { return placer::pack_by(which, instance.problem); }));
    found[name] = one.at("bins");
    found[std::string(name) + "_ms"] = one.at("ms");
  }
  return found;
}

}  // namespace

Result<void> run_pagination(const PaginationRun& run, std::istream& in, std::ostream& out) {
  for (std::string line; std::getline(in, line);) {
    const Instance instance = TRY(parse(line));
    json found;
    if (run.budget_us == 0) {
      found = TRY(by_heuristics(instance));
    } else {
      found = TRY(measure(instance, [&] {
        return placer::pack(instance.problem,
                            {.budget = std::chrono::microseconds(run.budget_us),
                             .threads = run.threads,
                             .bins_enough = placer::bins_bound(instance.problem)});
      }));
      if (!run.with_packings) found.erase("bin_of");
    }
    out << found.dump() << '\n';
  }
  return {};
}

}  // namespace samepage::bench
