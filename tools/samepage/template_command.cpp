#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/boot_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"
#include "tools/samepage/template_create.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;
std::string path_of(const std::string& name) {
  return "/templates/" + http::url_encoded(name);
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

}  // namespace

void add_template(CLI::App& root, Subcommands& subcommands) {
  CLI::App* parent = root.add_subcommand("template", "Frozen boots, from which VMs are forked");
  parent->require_subcommand(1);
  const auto options = std::make_shared<TemplateOptions>();
  CLI::App& create_command =
      subcommands.add(*parent, "create", "Boot a leader and freeze it when it is ready",
                      [options](Session& session) -> Result<void> {
                        const std::string made = TRY(create_template(session, *options));
                        if (session.json) session.out << made << '\n';
                        return {};
                      });
  create_command.add_option("name", options->name, "The template's name")->required();
  add_template_options(create_command, *options);
  create_command.add_option("--on", options->host, "The host to boot the leader on")
      ->type_name(kHostName);
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
