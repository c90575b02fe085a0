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

constexpr const char* kPostcopyRisk =
    "warning: with post-copy the VM goes on at the target before all its memory is there; from "
    "the\n"
    "warning: switch on it is lost if the link or one of the hosts fails before the end\n";

struct MigrateOptions {
  MigrationRequest request;
  bool cancel = false;
};

bool moves_all(const Plan& plan, const std::vector<std::string>& vms) {
  return std::all_of(vms.begin(), vms.end(), [&](const std::string& vm) {
    return std::any_of(plan.moves.begin(), plan.moves.end(),
                       [&](const Move& move) { return move.vm == vm || move.uuid == vm; });
  });
}

/// The plan that runs, if it moves these VMs.
Result<std::string> running_plan(const Session& session, const std::vector<std::string>& vms) {
  const std::string body = TRY(session.placer.get("/plans", answer_deadline()));
  for (const auto& [plan, json] : TRY(parse_plans(body))) {
    if (plan.state == "running" && moves_all(plan, vms)) return plan.id;
  }
  return fail(Errc::kNotFound,
              vms.empty() ? "no migration goes on" : "no migration of these VMs goes on");
}

Result<void> cancel(Session& session, const std::vector<std::string>& vms) {
  const std::string id = TRY(running_plan(session, vms));
  TRY(stop_plan(id, Stop::kAtOnce, session));
  const StoredPlan ended = TRY(follow_plan(id, Stop::kAtOnce, session));
  // A move that was not to be is no failure here; what became of it is in the table.
  static_cast<void>(report_outcome(ended, session));
  return {};
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + printable(name);
  return text;
}

Result<void> migrate(Session& session, const MigrateOptions& options) {
  const MigrationRequest& request = options.request;
  if (options.cancel) return cancel(session, request.vms);
  if (request.postcopy) session.talk << kPostcopyRisk;
  const std::string answer =
      TRY(session.placer.send("POST", "/migrations", migration_body(request), answer_deadline()));
  const StoredPlan started = TRY(parse_plan(answer));
  if (request.dry_run) {
    print_plan(started, session);
    session.talk << "\ndry run: nothing was moved; `samepage apply " << printable(started.plan.id)
                 << "` carries it out\n";
    return {};
  }
  session.talk << "moving " << joined(request.vms) << " to " << printable(request.target)
               << " as plan " << printable(started.plan.id) << '\n';
  const StoredPlan ended = TRY(follow_plan(started.plan.id, Stop::kAtOnce, session));
  return report_outcome(ended, session);
}

}  // namespace

void add_migrate(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<MigrateOptions>();
  MigrationRequest& request = options->request;
  CLI::App& migrate_command =
      subcommands.add(root, "migrate", "Move VMs to another host",
                      [options](Session& session) { return migrate(session, *options); });
  migrate_command.add_option("vm", request.vms, "The VMs; alike ones cost little after the first")
      ->type_name(kVmName);
  migrate_command.add_option("--to", request.target, "The host to move them to")
      ->type_name(kHostName);
  migrate_command.add_flag("--dry-run", request.dry_run, "Show what would be moved, move nothing");
  migrate_command
      .add_option("--parallel", request.parallel,
                  "Let QEMU send through this many connections beside its main one")
      ->type_name("N")
      ->check(CLI::Range(1, 8).description(""));
  migrate_command
      .add_option("--deadline", request.deadline_s,
                  "Give up a VM that is not across after so long; it stays where it is")
      ->type_name("SECONDS")
      ->check(CLI::Range(1, 86'400).description(""));
  migrate_command.add_flag("--postcopy", request.postcopy,
                           "Run the VM at the target before its memory is there: risky");
  migrate_command.add_flag("--cancel", options->cancel,
                           "Give up the migration that goes on; its VM stays where it is");
  migrate_command.parse_complete_callback([options] {
    if (options->cancel) return;
    if (options->request.vms.empty()) throw CLI::RequiredError("vm");
    if (options->request.target.empty()) throw CLI::RequiredError("--to");
  });
}

}  // namespace samepage::cli
