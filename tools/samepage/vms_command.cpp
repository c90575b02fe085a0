#include <memory>
#include <string>
#include <string_view>
#include <vector>

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
               {"TRACKER"},
               {"DOMAIN"},
               {"SHARES MOST WITH"}});
  for (const Vm& vm : vms) {
    const std::string partner =
        vm.shares_with.empty() ? "-" : vm.shares_with + " (" + show_mib(vm.shares_mib) + ")";
    table.add_row({vm.name, vm.host, vm.state, show_mib(vm.memory_mib), show_mib(vm.present_mib),
                   show_mib(vm.zero_mib), show_mib(vm.duplicate_mib), show_mib(vm.unique_mib),
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

/// For a URL: names may hold what means something there.
std::string encoded(const std::string& text) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string safe;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (kPlain.find(c) != std::string_view::npos) {
      safe += c;
    } else {
      safe += {'%', kDigits[byte / 16U], kDigits[byte % 16U]};
    }
  }
  return safe;
}

Result<void> what_if(Session& session, const std::vector<std::string>& moves) {
  std::string asked;
  for (const std::string& move : moves) asked += (asked.empty() ? "" : ",") + move;
  const std::string path = "/what-if?moves=" + encoded(asked);
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
  const auto names = std::make_shared<bool>(false);
  const auto moves = std::make_shared<std::vector<std::string>>();
  CLI::App& vms = subcommands.add(
      root, "vms", "List the VMs and what their memory holds", [names, moves](Session& session) {
        return moves->empty() ? list(session, *names) : what_if(session, *moves);
      });
  vms.add_flag("--names", *names, "Print the names only, one a line");
  vms.add_option("--what-if", *moves,
                 "Show what the hosts would share if this VM were on that host; may be repeated")
      ->type_name("VM=HOST");
}

}  // namespace samepage::cli
