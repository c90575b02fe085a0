#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/samepage/boot_messages.h"
#include "tools/samepage/storm_run.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using nlohmann::json;

struct StandbyOptions {
  std::string vm;
  std::string source;
  std::size_t count = 1;
  std::vector<std::string> on;
  bool force = false;
};

std::string path_of(const std::string& vm) {
  return "/standbys/" + http::url_encoded(vm);
}

Result<void> create(Session& session, const StandbyOptions& options) {
  const json request = {{"vm", options.vm},
                        {"template", options.source},
                        {"count", options.count},
                        {"on", options.on}};
  const std::string body =
      TRY(session.placer.send("POST", "/standbys", request.dump(), answer_deadline()));
  const Storm begun = TRY(parse_storm(body));
  return follow_storm(begun.id, session);
}

Result<void> list(Session& session) {
  const std::string body = TRY(session.placer.get("/standbys", answer_deadline()));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  const StandbyList found = TRY(parse_standbys(body));
  if (found.empty()) {
    session.talk << "no standby; `samepage standby create` makes some\n";
    return {};
  }
  Table table({{"VM"}, {"RUNS AS"}, {"ON HOST"}, {"STATE"}, {"STANDBY"}, {"ON HOST"}, {"STATE"}});
  for (const Standby& one : found) {
    table.add_row({one.vm, one.now, one.now_host, one.now_state, one.name, one.host, one.state});
  }
  table.print(session.out, session.out_width);
  return {};
}

Result<void> wake(Session& session, const StandbyOptions& options) {
  const json request = {{"force", options.force}};
  const std::string body = TRY(
      session.placer.send("POST", path_of(options.vm) + "/wake", request.dump(), work_deadline()));
  if (session.json) session.out << body << '\n';
  session.talk << "woke a standby of " << printable(options.vm) << "; `samepage standby list`\n";
  return {};
}

Result<void> remove(Session& session, const StandbyOptions& options) {
  TRY(session.placer.send("DELETE", path_of(options.vm), "", work_deadline()));
  session.talk << "ended the standbys of " << printable(options.vm) << '\n';
  return {};
}

}  // namespace

void add_standby(CLI::App& root, Subcommands& subcommands) {
  CLI::App* parent =
      root.add_subcommand("standby", "Sleeping forks that take over when a host fails");
  parent->require_subcommand(1);
  const auto options = std::make_shared<StandbyOptions>();
  const auto add = [&](const char* name, const char* about, auto action) -> CLI::App& {
    CLI::App& command = subcommands.add(*parent, name, about, [options, action](Session& session) {
      return action(session, *options);
    });
    command.add_option("vm", options->vm, "The VM that they stand for")
        ->required()
        ->type_name(kVmName);
    return command;
  };
  CLI::App& create_command = add("create", "Fork sleepers for a VM on other hosts", create);
  create_command.add_option("--template", options->source, "What they are forked from")
      ->required()
      ->type_name(kTemplateName);
  create_command.add_option("--count", options->count, "How many")->capture_default_str();
  create_command
      .add_option("--on", options->on, "The hosts to choose from; all others when left out")
      ->type_name(kHostName);
  subcommands.add(*parent, "list", "List VMs with standbys, and what is asleep where",
                  [](Session& session) { return list(session); });
  add("wake", "Let one run, when the VM certainly does not", wake)
      .add_flag("--force", options->force, "Also when the VM may be running");
  add("rm", "End the sleepers of a VM", remove);
}

}  // namespace samepage::cli
