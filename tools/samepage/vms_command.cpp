#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

void print_vms(const std::vector<Vm>& vms, Session& session) {
  Table table({{"VM"},
               {"HOST"},
               {"STATE"},
               {"MEMORY", Align::kRight},
               {"PRESENT", Align::kRight},
               {"ZERO", Align::kRight},
               {"DUPLICATE", Align::kRight},
               {"UNIQUE", Align::kRight},
               {"SCANNED", Align::kRight},
               {"DOMAIN"},
               {"SHARES MOST WITH"}});
  for (const Vm& vm : vms) {
    const std::string partner =
        vm.shares_with.empty() ? "-" : vm.shares_with + " (" + show_mib(vm.shares_mib) + ")";
    table.add_row({vm.name, vm.host, vm.state, show_mib(vm.memory_mib), show_mib(vm.present_mib),
                   show_mib(vm.zero_mib), show_mib(vm.duplicate_mib), show_mib(vm.unique_mib),
                   show_age(vm.fingerprint_age_s), vm.sharing_domain, partner});
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

}  // namespace

void add_vms(CLI::App& root, Subcommands& subcommands) {
  const auto names = std::make_shared<bool>(false);
  CLI::App& vms = subcommands.add(root, "vms", "List the VMs and what their memory holds",
                                  [names](Session& session) { return list(session, *names); });
  vms.add_flag("--names", *names, "Print the names only, one a line");
}

}  // namespace samepage::cli
