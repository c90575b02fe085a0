#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

struct HostsOptions {
  bool names = false;
  std::string name;
  std::string public_key;
  std::string label;  ///< KEY=VALUE
};

void print_hosts(const std::vector<Host>& hosts, Session& session) {
  Table table({{"HOST"},
               {"STATE"},
               {"VMS", Align::kRight},
               {"MEMORY", Align::kRight},
               {"RESIDENT", Align::kRight},
               {"DISTINCT", Align::kRight},
               {"SHARED", Align::kRight},
               {"PREDICTED", Align::kRight},
               {"REPORT", Align::kRight},
               {"HYPERVISOR"}});
  for (const Host& host : hosts) {
    table.add_row({host.name, host.state, show_count(host.vms), show_mib(host.memory_mib),
                   show_mib(host.resident_mib), show_mib(host.distinct_mib),
                   show_mib(host.ksm_shared_mib), show_mib(host.predicted_shared_mib),
                   show_age(host.report_age_s), host.hypervisor_version});
  }
  table.print(session.out, session.out_width);
}

Result<void> list(Session& session, const HostsOptions& options) {
  const std::string body = TRY(session.placer.get("/hosts", answer_deadline()));
  const std::vector<Host> hosts = TRY(parse_hosts(body));
  if (options.names) {
    for (const Host& host : hosts) session.out << printable(host.name) << '\n';
  } else if (session.json) {
    session.out << body << '\n';
  } else if (hosts.empty()) {
    session.talk << "no host is enrolled; `samepage hosts enroll NAME KEY` enrolls one\n";
  } else {
    print_hosts(hosts, session);
  }
  return {};
}

Result<void> enroll(Session& session, const HostsOptions& options) {
  const std::string body = TRY(session.placer.send(
      "POST", "/hosts", text_object({{"name", options.name}, {"public_key", options.public_key}}),
      answer_deadline()));
  const Host host = TRY(parse_host(body));
  if (session.json) {
    session.out << body << '\n';
  } else {
    session.talk << "enrolled " << printable(host.name) << "; its agent may connect now\n";
  }
  return {};
}

Result<void> forget(Session& session, const HostsOptions& options) {
  const std::string body = TRY(session.placer.send(
      "DELETE", "/hosts/" + http::url_encoded(options.name), "", answer_deadline()));
  if (session.json) {
    session.out << body << '\n';
  } else {
    session.talk << "forgot " << printable(options.name) << "\n";
  }
  return {};
}

Result<void> label(Session& session, const HostsOptions& options) {
  const std::size_t equals = options.label.find('=');
  if (equals == std::string::npos) {
    return fail(Errc::kInvalid, "a label is KEY=VALUE, such as rack=a; not " + options.label);
  }
  const std::string body =
      TRY(session.placer.send("POST", "/hosts/" + http::url_encoded(options.name) + "/labels",
                              text_object({{"label", options.label.substr(0, equals)},
                                           {"value", options.label.substr(equals + 1)}}),
                              answer_deadline()));
  if (session.json) session.out << body << '\n';
  return {};
}

}  // namespace

void add_hosts(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<HostsOptions>();
  CLI::App& hosts =
      subcommands.add(root, "hosts", "List the hosts, or enroll and forget them",
                      [options](Session& session) { return list(session, *options); });
  hosts.add_flag("--names", options->names, "Print the names only, one a line");
  hosts.require_subcommand(0, 1);

  CLI::App& enrolled =
      subcommands.add(hosts, "enroll", "Let the agent that holds a key join as a host",
                      [options](Session& session) { return enroll(session, *options); });
  enrolled.add_option("name", options->name, "The host's name from now on")
      ->required()
      ->type_name("NAME");
  enrolled
      .add_option("key", options->public_key,
                  "The agent's public key, 64 hexadecimal digits; samepaged logs it when it starts")
      ->required()
      ->type_name("KEY");

  CLI::App& forgotten =
      subcommands.add(hosts, "forget", "Revoke a host that holds no VM",
                      [options](Session& session) { return forget(session, *options); });
  forgotten.add_option("name", options->name, "The host")->required()->type_name(kHostName);

  CLI::App& labelled =
      subcommands.add(hosts, "label", "Give a host a label, for rules",
                      [options](Session& session) { return label(session, *options); });
  labelled.add_option("name", options->name, "The host")->required()->type_name(kHostName);
  labelled.add_option("label", options->label, "The label; without a value it is taken away")
      ->required()
      ->type_name("KEY=VALUE");
}

}  // namespace samepage::cli
