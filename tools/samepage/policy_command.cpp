#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

struct PolicyOptions {
  std::string mode;
  std::string goal;
  std::optional<double> every_s;
  std::optional<double> cooldown_s;
  std::optional<unsigned> moves_at_once;
  std::optional<unsigned> moves_per_host;
  std::optional<unsigned> moves_per_link;
};

nlohmann::json changes_of(const PolicyOptions& options) {
  nlohmann::json changes = nlohmann::json::object();
  if (!options.mode.empty()) changes["mode"] = options.mode;
  if (!options.goal.empty()) changes["goal"] = options.goal;
  if (options.every_s) changes["every_s"] = *options.every_s;
  if (options.cooldown_s) changes["cooldown_s"] = *options.cooldown_s;
  if (options.moves_at_once) changes["moves_at_once"] = *options.moves_at_once;
  if (options.moves_per_host) changes["moves_per_host"] = *options.moves_per_host;
  if (options.moves_per_link) changes["moves_per_link"] = *options.moves_per_link;
  return changes;
}

Result<void> run(Session& session, const PolicyOptions& options) {
  const nlohmann::json changes = changes_of(options);
  const std::string body =
      changes.empty()
          ? TRY(session.placer.get("/policy", answer_deadline()))
          : TRY(session.placer.send("POST", "/policy", changes.dump(), answer_deadline()));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  Table table({{"SETTING"}, {"VALUE"}});
  for (const auto& [name, value] : TRY(parse_settings(body))) table.add_row({name, value});
  table.print(session.out, session.out_width);
  return {};
}

struct FigureOptions {
  std::string vm;
  std::string what;
  double value = 0;
  double limit = 0;
};

Result<void> tell(Session& session, const FigureOptions& options) {
  const nlohmann::json figure{
      {"what", options.what}, {"value", options.value}, {"limit", options.limit}};
  const std::string path = "/vms/" + http::url_encoded(options.vm) + "/figures";
  const std::string body = TRY(session.placer.send("POST", path, figure.dump(), answer_deadline()));
  if (session.json) session.out << body << '\n';
  return {};
}

}  // namespace

void add_policy(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<PolicyOptions>();
  CLI::App& policy =
      subcommands.add(root, "policy", "Show or change what the placer does by itself",
                      [options](Session& session) { return run(session, *options); });
  policy
      .add_option("--mode", options->mode,
                  "manual: nothing; shadow: write down what it would do; recommend: propose plans; "
                  "automatic: carry them out")
      ->type_name("MODE");
  policy.add_option("--goal", options->goal, "Of its own plans: as `samepage plan --goal`")
      ->type_name("GOAL");
  policy.add_option("--every", options->every_s, "Seconds between two looks at the fleet")
      ->type_name("SECONDS");
  policy
      .add_option("--cooldown", options->cooldown_s,
                  "Seconds for which a VM that was moved rests; twice as long after each more")
      ->type_name("SECONDS");
  policy
      .add_option("--moves-at-once", options->moves_at_once,
                  "Migrations of a plan that may go on at the same time in the fleet")
      ->type_name("N");
  policy
      .add_option("--moves-per-host", options->moves_per_host,
                  "Of them, that one host may send or receive")
      ->type_name("N");
  policy
      .add_option("--moves-per-link", options->moves_per_link,
                  "Of them, that may go on between the same two hosts")
      ->type_name("N");
}

void add_figure(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<FigureOptions>();
  CLI::App& figure = subcommands.add(
      root, "figure", "Tell the placer a figure of a VM's application, such as a response time",
      [options](Session& session) { return tell(session, *options); });
  figure.add_option("vm", options->vm, "The VM")->required()->type_name(kVmName);
  figure.add_option("what", options->what, "What it is: response_ms")
      ->required()
      ->type_name("WHAT");
  figure.add_option("value", options->value, "How much it is now")->required()->type_name("VALUE");
  figure
      .add_option("limit", options->limit,
                  "How much it may be; above, the VM's host counts as a hotspot")
      ->required()
      ->type_name("LIMIT");
}

}  // namespace samepage::cli
