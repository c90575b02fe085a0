#include <chrono>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/samepage/boot_messages.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;
using nlohmann::json;

constexpr auto kLookInterval = std::chrono::milliseconds(200);

struct CreateOptions {
  std::string name;
  std::string domain_file;
  std::string ready_when = "30";
  double time_max_s = 600;
  std::string host;
};

std::string path_of(const std::string& name) {
  return "/templates/" + http::url_encoded(name);
}

Result<std::string> read_domain(const std::string& path) {
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || text.empty()) return fail(Errc::kInvalid, path + " cannot be read");
  return text;
}

/// "AGENT", a number of seconds, or a pattern for the serial line.
void put_ready_when(const std::string& when, json& body) {
  const bool number = !when.empty() && when.find_first_not_of("0123456789.") == std::string::npos;
  if (when == "AGENT" || when == "agent") {
    body["ready_when"] = "agent";
  } else if (number) {
    body["ready_when"] = "time";
    body["ready_s"] = std::strtod(when.c_str(), nullptr);
  } else {
    body["ready_when"] = "serial";
    body["pattern"] = when;
  }
}

Result<json> request_of(const CreateOptions& options) {
  json body = {{"name", options.name},
               {"domain_xml", TRY(read_domain(options.domain_file))},
               {"time_max_s", options.time_max_s},
               {"host", options.host}};
  put_ready_when(options.ready_when, body);
  return body;
}

Result<void> create(Session& session, const CreateOptions& options) {
  const json body = TRY(request_of(options));
  TRY(session.placer.send("POST", "/templates", body.dump(), answer_deadline()));
  const auto started = std::chrono::steady_clock::now();
  Interrupts interrupts;
  ProgressBar bar(session.talk, session.talk_width);
  bar.say("booting a leader for template " + printable(options.name));
  while (true) {
    const std::string answer = TRY(session.placer.get(path_of(options.name), answer_deadline()));
    const Template made = TRY(parse_template(answer));
    if (made.state == "failed") return fail(Errc::kUnavailable, made.error);
    if (made.state == "ready") {
      bar.clear();
      if (session.json) session.out << answer << '\n';
      session.talk << "template " << printable(made.name) << " is ready: the leader took "
                   << show_ms(made.leader_ready_s.value_or(0) * 1e3) << '\n';
      return {};
    }
    if (interrupts.count() > 0) {
      return fail(Errc::kUnavailable, "left template " + options.name +
                                          " to its host; `samepage template list` tells of it");
    }
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - started;
    bar.show(options.name, std::min(waited.count() / options.time_max_s, 1.0), "the leader boots");
    std::this_thread::sleep_for(kLookInterval);
  }
}

std::string hosts_text(const Template& one) {
  std::string text;
  for (const Template::Place& place : one.places) {
    text += (text.empty() ? "" : ", ") + place.host + " (" + show_count(place.forks) + " VMs)";
  }
  return text.empty() ? "-" : text;
}

void print(const std::vector<Template>& templates, Session& session) {
  Table table({{"TEMPLATE"},
               {"IMAGE"},
               {"MEMORY", Align::kRight},
               {"VCPUS", Align::kRight},
               {"LEADER", Align::kRight},
               {"STORED"},
               {"ON HOSTS"}});
  for (const Template& one : templates) {
    table.add_row({one.name, one.image.empty() ? "-" : one.image, show_mib(one.memory_mib),
                   show_count(one.vcpus), show_ms(one.leader_ready_s.value_or(0) * 1e3),
                   one.stored ? "yes" : "no", hosts_text(one)});
  }
  table.print(session.out, session.out_width);
}

Result<void> list(Session& session, bool names) {
  const std::string body = TRY(session.placer.get("/templates", answer_deadline()));
  const TemplateList found = TRY(parse_templates(body));
  if (names) {
    for (const Template& one : found.templates) session.out << printable(one.name) << '\n';
    return {};
  }
  if (session.json) {
    session.out << body << '\n';
  } else if (found.templates.empty()) {
    session.talk << "no template; `samepage template create` makes one\n";
  } else {
    print(found.templates, session);
  }
  for (const std::string& host : found.silent_hosts) {
    session.talk << "host " << printable(host) << " did not answer\n";
  }
  return {};
}

Result<void> show(Session& session, const std::string& name) {
  const std::string body = TRY(session.placer.get(path_of(name), answer_deadline()));
  const Template one = TRY(parse_template(body));
  if (session.json) {
    session.out << body << '\n';
  } else if (one.state != "ready") {
    session.out << printable(one.name) << ": " << printable(one.state) << ' '
                << printable(one.error) << '\n';
  } else {
    print({one}, session);
    session.out << "id " << printable(one.id) << ", made with " << printable(one.hypervisor)
                << '\n';
  }
  return {};
}

Result<void> verify(Session& session, const std::string& name) {
  const std::string body =
      TRY(session.placer.send("POST", path_of(name) + "/verify", "", work_deadline()));
  const auto differences = TRY(parse_differences(body));
  if (session.json) session.out << body << '\n';
  for (const std::string& one : differences) session.talk << printable(one) << '\n';
  if (!differences.empty()) return fail(Errc::kCorrupt, "template " + name + " is damaged");
  session.talk << "template " << printable(name) << " is what the image store has\n";
  return {};
}

void add_create(CLI::App& parent, Subcommands& subcommands) {
  const auto options = std::make_shared<CreateOptions>();
  CLI::App& command =
      subcommands.add(parent, "create", "Boot a leader and freeze it when it is ready",
                      [options](Session& session) { return create(session, *options); });
  command.add_option("name", options->name, "The template's name")->required();
  command.add_option("--domain", options->domain_file, "The libvirt domain to boot, as XML")
      ->required()
      ->type_name(kFilePath);
  command
      .add_option("--ready-when", options->ready_when,
                  "What to wait for: a pattern on the serial line, AGENT, or seconds")
      ->type_name("PATTERN|AGENT|SECONDS")
      ->capture_default_str();
  command.add_option("--time-max", options->time_max_s, "When to give up")
      ->type_name("SECONDS")
      ->capture_default_str();
  command.add_option("--on", options->host, "The host to boot the leader on")->type_name(kHostName);
}

}  // namespace

void add_template(CLI::App& root, Subcommands& subcommands) {
  CLI::App* parent = root.add_subcommand("template", "Frozen boots, from which VMs are forked");
  parent->require_subcommand(1);
  add_create(*parent, subcommands);
  const auto names = std::make_shared<bool>(false);
  CLI::App& list_command =
      subcommands.add(*parent, "list", "List the templates and where they lie",
                      [names](Session& session) { return list(session, *names); });
  list_command.add_flag("--names", *names, "Print the names only, one a line");

  const auto add = [&](const char* name, const char* about, auto action) {
    const auto of = std::make_shared<std::string>();
    CLI::App& command = subcommands.add(
        *parent, name, about, [of, action](Session& session) { return action(session, *of); });
    command.add_option("name", *of, "The template")->required()->type_name(kTemplateName);
  };
  add("show", "Show one template", show);
  add("verify", "Compare a template's RAM on every host with the image store", verify);
  add("rm", "Remove a template from all hosts and the image store; its VMs go on",
      [](Session& session, const std::string& name) -> Result<void> {
        TRY(session.placer.send("DELETE", path_of(name), "", work_deadline()));
        session.talk << "template " << printable(name) << " removed\n";
        return {};
      });
}

}  // namespace samepage::cli
