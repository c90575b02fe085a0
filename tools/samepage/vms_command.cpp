#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

struct VmsOptions {
  bool names = false;
  std::vector<std::string> moves;  ///< VM=HOST
  std::string history;
};

void print_vms(const std::vector<Vm>& vms, Session& session) {
  Table table({{"VM"},
               {"HOST"},
               {"STATE"},
               {"MEMORY", Align::kRight},
               {"PRESENT", Align::kRight},
               {"ZERO", Align::kRight},
               {"DUPLICATE", Align::kRight},
               {"UNIQUE", Align::kRight},
               {"OWN", Align::kRight},
               {"TEMPLATE", Align::kRight},
               {"KSM", Align::kRight},
               {"SCANNED", Align::kRight},
               {"TRACKER"},
               {"DOMAIN"},
               {"SHARES MOST WITH"}});
  for (const Vm& vm : vms) {
    const std::string partner =
        vm.shares_with.empty() ? "-" : vm.shares_with + " (" + show_mib(vm.shares_mib) + ")";
    table.add_row({vm.name, vm.host, vm.state, show_mib(vm.memory_mib), show_mib(vm.present_mib),
                   show_mib(vm.zero_mib), show_mib(vm.duplicate_mib), show_mib(vm.unique_mib),
                   show_mib(vm.own_mib), show_mib(vm.template_mib), show_mib(vm.ksm_mib),
                   show_age(vm.fingerprint_age_s), vm.tracker.empty() ? "-" : vm.tracker,
                   vm.sharing_domain, partner});
  }
  table.print(session.out, session.out_width);
}

Result<void> list(Session& session, bool names) {
  const std::string body = TRY(session.placer.get("/vms", answer_deadline()));
  const std::vector<Vm> vms = TRY(parse_vms(body));
  if (names) {
    for (const Vm& vm : vms) session.out << printable(vm.name) << '\n';
  } else if (session.json) {
    session.out << body << '\n';
  } else if (vms.empty()) {
    session.talk << "no VM runs on a host that is up; `samepage hosts` lists the hosts\n";
  } else {
    print_vms(vms, session);
  }
  return {};
}

Result<void> show_history(Session& session, const std::string& vm) {
  const std::string path = "/vms/" + http::url_encoded(vm) + "/history";
  const std::string body = TRY(session.placer.get(path, answer_deadline()));
  const std::vector<MemoryPoint> points = TRY(parse_vm_history(body));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  Table table({{"AT"},
               {"HOST"},
               {"OWN", Align::kRight},
               {"TEMPLATE", Align::kRight},
               {"KSM", Align::kRight}});
  for (const MemoryPoint& point : points) {
    table.add_row({point.at, point.host, show_mib(point.own_mib), show_mib(point.template_mib),
                   show_mib(point.ksm_mib)});
  }
  table.print(session.out, session.out_width);
  return {};
}

Result<void> what_if(Session& session, const std::vector<std::string>& moves) {
  std::string asked;
  for (const std::string& move : moves) asked += (asked.empty() ? "" : ",") + move;
  const std::string path = "/what-if?moves=" + http::url_encoded(asked);
  const std::string body = TRY(session.placer.get(path, answer_deadline()));
  const WhatIf found = TRY(parse_what_if(body));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  Table table({{"HOST"},
               {"SHARES", Align::kRight},
               {"WOULD SHARE", Align::kRight},
               {"RANGE", Align::kRight},
               {"SCANNED", Align::kRight}});
  for (const WhatIf::Host& host : found.hosts) {
    table.add_row({host.name, show_mib(host.before_mib), show_mib(host.after_mib),
                   show_mib_range(host.low_mib, host.high_mib), show_age(host.age_s)});
  }
  table.print(session.out, session.out_width);
  session.talk << "in all " << show_mib_change(found.gain_mib) << "; nothing was moved\n";
  return {};
}

}  // namespace

void add_vms(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<VmsOptions>();
  CLI::App& vms = subcommands.add(
      root, "vms", "List the VMs and what their memory holds, or show how one's went",
      [options](Session& session) {
        if (!options->history.empty()) return show_history(session, options->history);
        if (!options->moves.empty()) return what_if(session, options->moves);
        return list(session, options->names);
      });
  vms.add_flag("--names", options->names, "Print the names only, one a line");
  CLI::Option* const moves =
      vms.add_option(
             "--what-if", options->moves,
             "Show what the hosts would share if this VM were on that host; may be repeated")
          ->type_name("VM=HOST");
  vms.add_option("--history", options->history,
                 "Show how much of this VM's memory was its own, its template's and KSM's, the "
                 "newest first")
      ->type_name(kVmName)
      ->excludes(moves);
}

}  // namespace samepage::cli
