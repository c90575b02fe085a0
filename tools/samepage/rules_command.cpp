#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/child_process.h"
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
  std::string from;
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

std::string editor() {
  for (const char* name : {"VISUAL", "EDITOR"}) {
    const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
    if (value != nullptr && *value != '\0') return value;
  }
  return "editor";
}

/// The shell takes an editor with options, and the file's name as it is.
Result<void> run_editor(const std::string& path) {
  const std::string command = editor() + " \"$1\"";
  const pid_t child = TRY(spawn_process({"sh", "-c", command, "sh", path}));
  if (ends_well(child, Deadline::max())) return {};
  return fail(Errc::kIo, "the editor failed: " + editor());
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return fail(Errc::kNotFound, "cannot read " + path);
  return text.str();
}

/// A file of its own with the rules that hold.
Result<std::string> write_rules(const std::string& body) {
  std::string path = std::filesystem::temp_directory_path() / "samepage-rules-XXXXXX";
  const int file = ::mkstemp(path.data());
  if (file < 0) return fail(Errc::kIo, "cannot make a file in " + path);
  ::close(file);
  std::ofstream out(path);
  out << nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false).dump(2) << '\n';
  out.flush();
  if (!out) return fail(Errc::kIo, "cannot write " + path);
  return path;
}

Result<std::string> put_rules(Session& session, const std::string& path) {
  const std::string text = TRY(read_text(path));
  return session.placer.send("PUT", "/rules", text, work_deadline());
}

// What was written is kept when it does not hold.
Result<void> edit(Session& session, const RulesOptions& options) {
  std::string path = options.from;
  if (path.empty()) {
    const std::string before = TRY(session.placer.get("/rules", answer_deadline()));
    path = TRY(write_rules(before));
    TRY(run_editor(path));
  }
  const auto changed = put_rules(session, path);
  if (!changed && options.from.empty()) {
    return fail(changed.error().code(), changed.error().message() + "; nothing was changed: mend " +
                                            path + " and run `samepage rules edit --from " + path +
                                            "`");
  }
  if (!changed) return tl::unexpected(changed.error());
  if (options.from.empty()) std::filesystem::remove(path);
  if (session.json) session.out << *changed << '\n';
  const auto rules = TRY(parse_rules(*changed));
  session.talk << rules.size() << (rules.size() == 1 ? " rule holds\n" : " rules hold\n");
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

  CLI::App& edited =
      subcommands.add(rules, "edit", "Change all rules at once, in an editor",
                      [options](Session& session) { return edit(session, *options); });
  edited.add_option("--from", options->from, "The rules as JSON, instead of what an editor writes")
      ->type_name(kFilePath);

  CLI::App& removed =
      subcommands.add(rules, "remove", "Have a rule hold no more",
                      [options](Session& session) { return remove(session, *options); });
  removed.add_option("name", options->name, "The rule")->required()->type_name("NAME");
}

}  // namespace samepage::cli
