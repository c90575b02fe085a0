#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/plan_run.h"
#include "tools/samepage/plan_view.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

struct ApplyOptions {
  std::string id;
  bool dry_run = false;
};

/// The plan with the given id, or the newest one that was proposed and not applied.
Result<StoredPlan> find_plan(const Session& session, const std::string& id) {
  if (!id.empty()) {
    const std::string path = "/plans/" + http::url_encoded(id);
    return parse_plan(TRY(session.placer.get(path, answer_deadline())));
  }
  const std::string body = TRY(session.placer.get("/plans", answer_deadline()));
  std::vector<StoredPlan> plans = TRY(parse_plans(body));
  const auto proposed = std::find_if(plans.begin(), plans.end(), [](const StoredPlan& stored) {
    return stored.plan.state == "proposed";
  });
  if (proposed == plans.end()) {
    return fail(Errc::kNotFound, "no plan waits to be applied; `samepage plan` computes one");
  }
  return std::move(*proposed);
}

Result<void> apply(Session& session, const ApplyOptions& options) {
  const StoredPlan found = TRY(find_plan(session, options.id));
  const std::string& id = found.plan.id;
  if (options.dry_run) {
    print_plan(found, session);
    session.talk << "\ndry run: nothing was moved\n";
    return {};
  }
  session.talk << "applying plan " << printable(id) << ": " << found.plan.moves.size()
               << " moves\n";
  const std::string path = "/plans/" + http::url_encoded(id) + "/apply";
  TRY(session.placer.send("POST", path, "", answer_deadline()));
  const StoredPlan ended = TRY(follow_plan(id, Stop::kAfterMove, session));
  return report_outcome(ended, session);
}

}  // namespace

void add_apply(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<ApplyOptions>();
  CLI::App& apply_command =
      subcommands.add(root, "apply", "Carry out a plan and show each move's progress and cost",
                      [options](Session& session) { return apply(session, *options); });
  apply_command
      .add_option("plan", options->id, "The plan; the newest proposed one when it is left out")
      ->type_name(kPlanId);
  apply_command.add_flag("--dry-run", options->dry_run, "Show what would be moved, move nothing");
}

}  // namespace samepage::cli
