#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

Result<void> scan(Session& session) {
  const std::string body = TRY(session.placer.send("POST", "/scan", "", work_deadline()));
  const ScanOutcome outcome = TRY(parse_scan(body));
  if (session.json) session.out << body << '\n';
  for (const ScanOutcome::Failure& failure : outcome.failed) {
    session.talk << printable(failure.host) << ": " << printable(failure.message) << '\n';
  }
  if (!outcome.failed.empty()) {
    return fail(Errc::kUnavailable, std::to_string(outcome.failed.size()) + " of " +
                                        show_count(outcome.hosts) + " hosts could not be scanned");
  }
  session.talk << "scanned the VMs of " << show_count(outcome.hosts) << " hosts\n";
  return {};
}

}  // namespace

void add_scan(CLI::App& root, Subcommands& subcommands) {
  subcommands.add(root, "scan", "Have every host take fresh fingerprints of its VMs now", &scan);
}

}  // namespace samepage::cli
