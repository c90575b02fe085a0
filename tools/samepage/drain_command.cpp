#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/plan_run.h"
#include "tools/samepage/plan_view.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

struct DrainOptions {
  std::string host;
  bool dry_run = false;
};

std::string path_of(const DrainOptions& options) {
  return "/hosts/" + http::url_encoded(options.host) + "/drain";
}

/// What keeps VMs on the host that is to be empty.
Result<void> check_empty(const Plan& plan, const std::string& host, Session& session) {
  std::size_t staying = 0;
  for (const Stay& stay : plan.stays) {
    if (stay.host != host) continue;
    ++staying;
    session.talk << printable(stay.vm) << " stays on " << printable(host) << ": "
                 << printable(stay.reason) << '\n';
  }
  if (staying == 0) return {};
  return fail(Errc::kUnavailable, host + " is not empty: " + std::to_string(staying) +
                                      " VMs stay; it takes no new ones");
}

Result<void> drain(Session& session, const DrainOptions& options) {
  const std::string answer = TRY(session.placer.send(
      "POST", path_of(options), options.dry_run ? R"({"dry_run": true})" : "", work_deadline()));
  const StoredPlan started = TRY(parse_plan(answer));
  if (options.dry_run) {
    print_plan(started, session);
    session.talk << "\ndry run: nothing was moved\n";
    return {};
  }
  if (started.plan.moves.empty()) {
    if (session.json) session.out << started.json << '\n';
    TRY(check_empty(started.plan, options.host, session));
    session.talk << printable(options.host) << " is empty and takes no VMs\n";
    return {};
  }
  session.talk << "emptying " << printable(options.host) << " as plan "
               << printable(started.plan.id) << ": " << started.plan.moves.size() << " moves\n";
  const StoredPlan ended = TRY(follow_plan(started.plan.id, Stop::kAfterMove, session));
  TRY(report_outcome(ended, session));
  return check_empty(ended.plan, options.host, session);
}

Result<void> undrain(Session& session, const DrainOptions& options) {
  const std::string body =
      TRY(session.placer.send("DELETE", path_of(options), "", answer_deadline()));
  if (session.json) session.out << body << '\n';
  session.talk << printable(options.host) << " takes VMs again\n";
  return {};
}

}  // namespace

void add_drain(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<DrainOptions>();
  CLI::App& drained =
      subcommands.add(root, "drain", "Empty a host by live migration and keep it empty",
                      [options](Session& session) { return drain(session, *options); });
  drained.add_option("host", options->host, "The host")->required()->type_name(kHostName);
  drained.add_flag("--dry-run", options->dry_run, "Show what would be moved, move nothing");

  CLI::App& undrained =
      subcommands.add(root, "undrain", "Let a host that was drained take VMs again",
                      [options](Session& session) { return undrain(session, *options); });
  undrained.add_option("host", options->host, "The host")->required()->type_name(kHostName);
}

}  // namespace samepage::cli
