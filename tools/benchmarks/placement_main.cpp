// The C++ half of `tools/bench placement`: one subcommand for each of its parts.

#include <iostream>

#include <CLI/CLI.hpp>

#include "tools/benchmarks/placement_fleet.h"
#include "tools/benchmarks/placement_pagination.h"
#include "tools/benchmarks/placement_plan.h"

int main(int argc, char** argv) {
  using namespace samepage;  // NOLINT(google-build-using-namespace)
  CLI::App app("The parts of the placement benchmark; JSON on stdout");
  app.require_subcommand(1);
  Result<void> done;

  bench::PaginationRun pagination;
  CLI::App* const part = app.add_subcommand("pagination", "Packs instances read from stdin");
  part->add_option("--budget-us", pagination.budget_us, "Per instance; 0: the heuristics");
  part->add_option("--threads", pagination.threads);
  part->add_flag("--packings", pagination.with_packings);
  part->callback([&] { done = bench::run_pagination(pagination, std::cin, std::cout); });

  bench::FleetRun fleet;
  std::size_t queries = 10'000;
  const auto add_fleet = [&](const char* name, const char* about) {
    CLI::App* const sub = app.add_subcommand(name, about);
    sub->add_option("--hosts", fleet.hosts)->check(CLI::Range(1, 20'000));
    sub->add_option("--vms", fleet.vms)->check(CLI::Range(1, 400'000));
    sub->add_option("--budget-ms", fleet.budget_ms);
    sub->add_option("--threads", fleet.threads);
    sub->add_option("--seed", fleet.seed);
    return sub;
  };
  add_fleet("fleet", "Plans a made-up fleet anew")->callback([&] {
    done = bench::run_fleet(fleet, std::cout);
  });
  CLI::App* const index = add_fleet("index", "Asks for the best host of a VM");
  index->add_option("--queries", queries)->check(CLI::Range(1, 1'000'000));
  index->callback([&] { done = bench::run_index(fleet, queries, std::cout); });

  bench::PlanRun plan;
  std::string goal = "hosts";
  CLI::App* const whole = app.add_subcommand("plan", "Has placer::plan() plan a made-up fleet");
  whole->add_option("--hosts", plan.hosts)->check(CLI::Range(1, 20'000));
  whole->add_option("--vms", plan.vms)->check(CLI::Range(1, 400'000));
  whole->add_option("--goal", goal);
  whole->add_option("--search-ms", plan.search_ms);
  whole->add_option("--moves-max", plan.moves_max);
  whole->add_option("--threads", plan.threads)->check(CLI::Range(1, 64));
  whole->add_option("--seed", plan.seed);
  whole->add_option("--shared", plan.shared, "Instead of what is published")
      ->check(CLI::Range(0.0, 0.9));
  whole->callback([&] {
    auto parsed = placer::parse_goal(goal);
    if (parsed) plan.goal = *parsed;
    done = parsed ? bench::run_plan(plan, std::cout) : tl::unexpected(parsed.error());
  });

  CLI11_PARSE(app, argc, argv);
  if (done) return 0;
  std::cerr << "placement_bench: " << done.error().message() << '\n';
  return 1;
}
