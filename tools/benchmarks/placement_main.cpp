// The C++ half of `tools/bench placement`: one subcommand for each of its parts.

#include <iostream>

#include <CLI/CLI.hpp>

#include "tools/benchmarks/placement_pagination.h"

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

  CLI11_PARSE(app, argc, argv);
  if (done) return 0;
  std::cerr << "placement_bench: " << done.error().message() << '\n';
  return 1;
}
