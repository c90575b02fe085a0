#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/plan_view.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

struct PlanOptions {
  std::optional<double> gain_min_mib;
  std::string id;
  bool ids = false;
};

Result<void> compute(Session& session, const PlanOptions& options) {
  const std::string body =
      options.gain_min_mib ? number_object("gain_min_mib", *options.gain_min_mib) : "{}";
  const std::string answer = TRY(session.placer.send("POST", "/plans", body, work_deadline()));
  const StoredPlan plan = TRY(parse_plan(answer));
  print_plan(plan, session);
  if (!plan.plan.moves.empty()) {
    session.talk << "\n`samepage apply " << printable(plan.plan.id) << "` carries it out\n";
  }
  return {};
}

Result<void> show(Session& session, const PlanOptions& options) {
  const std::string answer =
      TRY(session.placer.get("/plans/" + http::url_encoded(options.id), answer_deadline()));
  print_plan(TRY(parse_plan(answer)), session);
  return {};
}

Result<void> list(Session& session, const PlanOptions& options) {
  const std::string answer = TRY(session.placer.get("/plans", answer_deadline()));
  const std::vector<StoredPlan> plans = TRY(parse_plans(answer));
  if (session.json && !options.ids) {
    session.out << answer << '\n';
    return {};
  }
  Table table(
      {{"PLAN"}, {"STATE"}, {"MOVES", Align::kRight}, {"GAIN", Align::kRight}, {"CREATED"}});
  for (const auto& [plan, json] : plans) {
    if (options.ids) session.out << printable(plan.id) << '\n';
    table.add_row({plan.id, plan.state, std::to_string(plan.moves.size()),
                   show_mib_change(plan.gain_mib), plan.created_at});
  }
  if (!options.ids) table.print(session.out, session.out_width);
  return {};
}

}  // namespace

void add_plan(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App& plan =
      subcommands.add(root, "plan", "Compute which moves would share more memory",
                      [options](Session& session) { return compute(session, *options); });
  plan.add_option("--gain-min", options->gain_min_mib,
                  "Propose no move that gains fewer MiB; the placer's own bound otherwise")
      ->type_name("MIB")
      ->check(CLI::NonNegativeNumber.description(""));
  plan.require_subcommand(0, 1);

  CLI::App& shown =
      subcommands.add(plan, "show", "Show a stored plan, with each move's state",
                      [options](Session& session) { return show(session, *options); });
  shown.add_option("plan", options->id, "The plan")->required()->type_name(kPlanId);

  CLI::App& listed =
      subcommands.add(plan, "list", "List the stored plans, the newest first",
                      [options](Session& session) { return list(session, *options); });
  listed.add_flag("--ids", options->ids, "Print the plans' ids only, one a line");
}

}  // namespace samepage::cli
