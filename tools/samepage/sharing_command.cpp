#include <algorithm>
#include <map>
#include <set>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

/// A matrix of more VMs is no longer read; the list of pairs says the same.
constexpr std::size_t kMatrixVmsMax = 12;

void print_hosts(const Sharing& sharing, Session& session) {
  Table table({{"HOST"},
               {"VMS", Align::kRight},
               {"ZERO", Align::kRight},
               {"WITHIN", Align::kRight},
               {"BETWEEN", Align::kRight},
               {"PREDICTED", Align::kRight},
               {"RANGE", Align::kRight},
               {"ACHIEVED", Align::kRight},
               {"OF PREDICTED", Align::kRight}});
  for (const HostSharing& host : sharing.hosts) {
    table.add_row({host.name, show_count(host.vms), show_mib(host.zero_mib),
                   show_mib(host.within_mib), show_mib(host.between_mib),
                   show_mib(host.predicted_mib), show_mib_range(host.low_mib, host.high_mib),
                   show_mib(host.achieved_mib), show_share(host.achieved_mib, host.predicted_mib)});
  }
  table.print(session.out, session.out_width);
}

void print_matrix(const Sharing& sharing, Session& session) {
  std::set<std::string> vms;
  std::map<std::pair<std::string, std::string>, std::optional<double>> shared;
  for (const PairSharing& pair : sharing.pairs) {
    vms.insert({pair.a, pair.b});
    shared[{pair.a, pair.b}] = pair.mib;
    shared[{pair.b, pair.a}] = pair.mib;
  }
  if (vms.size() < 3 || vms.size() > kMatrixVmsMax) return;

  std::vector<Table::Column> columns = {{"SHARED"}};
  for (const std::string& vm : vms) columns.push_back({printable(vm), Align::kRight});
  Table table(std::move(columns));
  for (const std::string& row : vms) {
    std::vector<std::string> cells = {row};
    for (const std::string& column : vms) {
      const auto found = shared.find({row, column});
      cells.push_back(found == shared.end() ? "" : show_mib(found->second));
    }
    table.add_row(std::move(cells));
  }
  session.out << '\n';
  table.print(session.out, session.out_width);
}

void print_pairs(Sharing sharing, Session& session) {
  if (sharing.pairs.empty()) return;
  std::stable_sort(sharing.pairs.begin(), sharing.pairs.end(),
                   [](const auto& x, const auto& y) { return x.mib > y.mib; });
  Table table({{"VM"}, {"VM"}, {"SHARED", Align::kRight}, {"RANGE", Align::kRight}});
  for (const PairSharing& pair : sharing.pairs) {
    table.add_row(
        {pair.a, pair.b, show_mib(pair.mib), show_mib_range(pair.low_mib, pair.high_mib)});
  }
  session.out << '\n';
  table.print(session.out, session.out_width);
}

Result<void> show(Session& session) {
  const std::string body = TRY(session.placer.get("/sharing", answer_deadline()));
  Sharing sharing = TRY(parse_sharing(body));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  if (sharing.hosts.empty()) {
    session.talk << "no host is up; `samepage hosts` lists the hosts\n";
    return {};
  }
  print_hosts(sharing, session);
  print_matrix(sharing, session);
  print_pairs(std::move(sharing), session);
  return {};
}

}  // namespace

void add_sharing(CLI::App& root, Subcommands& subcommands) {
  subcommands.add(root, "sharing",
                  "Show the memory that hosts share, predicted and achieved, and each pair of VMs",
                  &show);
}

}  // namespace samepage::cli
