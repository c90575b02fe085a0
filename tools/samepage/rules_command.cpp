#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

struct RulesOptions {
  std::string name;
  std::string kind;
  std::vector<std::string> vms;
  std::vector<std::string> hosts;
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "-" : text;
}

Result<void> list(Session& session) {
  const std::string body = TRY(session.placer.get("/rules", answer_deadline()));
  const std::vector<Rule> rules = TRY(parse_rules(body));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  if (rules.empty()) {
    session.talk << "no rule holds; `samepage rules add` adds one\n";
    return {};
  }
  Table table({{"RULE"}, {"KIND"}, {"VMS"}, {"HOSTS"}});
  for (const Rule& rule : rules) {
    table.add_row({rule.name, rule.kind, joined(rule.vms), joined(rule.hosts)});
  }
  table.print(session.out, session.out_width);
  return {};
}

Result<void> add(Session& session, const RulesOptions& options) {
  const nlohmann::json rule{{"name", options.name},
                            {"kind", options.kind},
                            {"vms", options.vms},
                            {"hosts", options.hosts}};
  const std::string body = TRY(session.placer.send("POST", "/rules", rule.dump(), work_deadline()));
  if (session.json) session.out << body << '\n';
  session.talk << "rule " << printable(options.name)
               << " holds; `samepage plan --goal movement` shows what it asks for\n";
  return {};
}

Result<void> remove(Session& session, const RulesOptions& options) {
  const std::string body = TRY(session.placer.send(
      "DELETE", "/rules/" + http::url_encoded(options.name), "", answer_deadline()));
  if (session.json) session.out << body << '\n';
  session.talk << "rule " << printable(options.name) << " holds no more\n";
  return {};
}

}  // namespace

void add_rules(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<RulesOptions>();
  CLI::App& rules =
      subcommands.add(root, "rules", "List the rules of placement, add and remove them", list);
  rules.require_subcommand(0, 1);

  CLI::App& added = subcommands.add(rules, "add", "Have a rule hold from now on",
                                    [options](Session& session) { return add(session, *options); });
  added.add_option("kind", options->kind, "together, apart, pin, avoid, ignore or maintenance")
      ->required()
      ->type_name("KIND");
  added.add_option("name", options->name, "The rule's name")->required()->type_name("NAME");
  added.add_option("--vm", options->vms, "A VM that it is about; may be repeated")
      ->type_name(kVmName);
  added
      .add_option("--host", options->hosts,
                  "A host that it is about, or a label KEY=VALUE; may be repeated")
      ->type_name(kHostName);

  CLI::App& removed =
      subcommands.add(rules, "remove", "Have a rule hold no more",
                      [options](Session& session) { return remove(session, *options); });
  removed.add_option("name", options->name, "The rule")->required()->type_name("NAME");
}

}  // namespace samepage::cli
