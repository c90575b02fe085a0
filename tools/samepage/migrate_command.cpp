#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/plan_run.h"
#include "tools/samepage/plan_view.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

struct MigrateOptions {
  std::string vm;
  std::string target;
};

Result<void> migrate(Session& session, const MigrateOptions& options) {
  const std::string body = text_object({{"vm", options.vm}, {"target", options.target}});
  const std::string answer =
      TRY(session.placer.send("POST", "/migrations", body, answer_deadline()));
  const StoredPlan started = TRY(parse_plan(answer));
  session.talk << "moving " << printable(options.vm) << " to " << printable(options.target)
               << " as plan " << printable(started.plan.id) << '\n';
  const StoredPlan ended = TRY(follow_plan(started.plan.id, session));
  return report_outcome(ended, session);
}

}  // namespace

void add_migrate(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<MigrateOptions>();
  CLI::App& migrate_command =
      subcommands.add(root, "migrate", "Move one VM to another host",
                      [options](Session& session) { return migrate(session, *options); });
  migrate_command.add_option("vm", options->vm, "The VM")->required()->type_name(kVmName);
  migrate_command.add_option("--to", options->target, "The host to move it to")
      ->required()
      ->type_name(kHostName);
}

}  // namespace samepage::cli
