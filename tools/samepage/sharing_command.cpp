#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/heat_map.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/sharing_exact.h"
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
               {"OF PREDICTED", Align::kRight},
               {"SCANNED", Align::kRight}});
  for (const HostSharing& host : sharing.hosts) {
    table.add_row({host.name, show_count(host.vms), show_mib(host.zero_mib),
                   show_mib(host.within_mib), show_mib(host.between_mib),
                   show_mib(host.predicted_mib), show_mib_range(host.low_mib, host.high_mib),
                   show_mib(host.achieved_mib), show_share(host.achieved_mib, host.predicted_mib),
                   show_age(host.fingerprint_age_s)});
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
  Table table({{"VM"},
               {"VM"},
               {"SHARED", Align::kRight},
               {"RANGE", Align::kRight},
               {"SCANNED", Align::kRight}});
  for (const PairSharing& pair : sharing.pairs) {
    table.add_row({pair.a, pair.b, show_mib(pair.mib), show_mib_range(pair.low_mib, pair.high_mib),
                   show_age(pair.age_s)});
  }
  session.out << '\n';
  table.print(session.out, session.out_width);
}

struct SharingOptions {
  std::string plot;
  std::vector<std::string> exact;
  bool verify = false;
  bool history = false;
  double timeout_s = 600;
};

/// One scan of all hosts, and what it says.
Result<Sharing> scan_and_ask(Session& session) {
  TRY(session.placer.send("POST", "/scan", "", work_deadline()));
  return parse_sharing(TRY(session.placer.get("/sharing", answer_deadline())));
}

/// KSM has been through all memory three times more, and its gain moved by less than 0.5 %.
bool has_settled(const HostSharing& first, const HostSharing& before, const HostSharing& now) {
  const double scans = now.ksm_full_scans.value_or(0) - first.ksm_full_scans.value_or(0);
  const double gained = now.achieved_mib.value_or(0) - before.achieved_mib.value_or(0);
  return scans >= 3 && std::abs(gained) <= 0.005 * now.achieved_mib.value_or(0) + 0.1;
}

std::size_t unsettled(const Sharing& first, const Sharing& before, const Sharing& now) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < now.hosts.size(); ++i) {
    if (!now.hosts[i].ksm_runs || now.hosts[i].vms.value_or(0) == 0) continue;
    const bool known = i < first.hosts.size() && i < before.hosts.size();
    if (!known || !has_settled(first.hosts[i], before.hosts[i], now.hosts[i])) ++count;
  }
  return count;
}

void print_verdicts(const Sharing& sharing, Session& session) {
  Table table({{"HOST"},
               {"PREDICTED", Align::kRight},
               {"RANGE", Align::kRight},
               {"ACHIEVED", Align::kRight},
               {"ERROR", Align::kRight},
               {"SCANNED", Align::kRight}});
  for (const HostSharing& host : sharing.hosts) {
    if (!host.ksm_runs || host.vms.value_or(0) == 0) {
      session.talk << printable(host.name) << ": KSM does not run there, or no VM does\n";
      continue;
    }
    const double achieved = host.achieved_mib.value_or(0);
    const double error = host.predicted_mib.value_or(0) - achieved;
    table.add_row({host.name, show_mib(host.predicted_mib),
                   show_mib_range(host.low_mib, host.high_mib), show_mib(host.achieved_mib),
                   achieved > 0 ? show_percent_change(error / achieved) : "-",
                   show_age(host.fingerprint_age_s)});
  }
  table.print(session.out, session.out_width);
}

Result<void> verify(Session& session, double timeout_s) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
  const Sharing first = TRY(scan_and_ask(session));
  Sharing before = first;
  Sharing now = first;
  for (;;) {
    std::this_thread::sleep_for(std::chrono::seconds(3));
    before = std::exchange(now, TRY(scan_and_ask(session)));
    const std::size_t left = unsettled(first, before, now);
    if (left == 0) break;
    if (std::chrono::steady_clock::now() >= until) {
      return fail(Errc::kTimedOut,
                  "KSM has not come to rest on " + std::to_string(left) +
                      " hosts; wait longer with --timeout, or have it scan faster");
    }
    session.talk << "waiting for KSM on " << left << " hosts\n";
  }
  if (session.json) {
    session.out << TRY(session.placer.get("/sharing", answer_deadline())) << '\n';
  } else {
    print_verdicts(now, session);
  }
  return {};
}

Result<void> show_history(Session& session) {
  const std::string body = TRY(session.placer.get("/sharing/history", answer_deadline()));
  const std::vector<SharingPoint> points = TRY(parse_sharing_history(body));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  Table table({{"AT"},
               {"HOST"},
               {"VMS", Align::kRight},
               {"PREDICTED", Align::kRight},
               {"RANGE", Align::kRight},
               {"ACHIEVED", Align::kRight},
               {"OF PREDICTED", Align::kRight}});
  for (const SharingPoint& point : points) {
    table.add_row({point.at, point.host, show_count(point.vms), show_mib(point.predicted_mib),
                   show_mib_range(point.low_mib, point.high_mib), show_mib(point.achieved_mib),
                   show_share(point.achieved_mib, point.predicted_mib)});
  }
  table.print(session.out, session.out_width);
  return {};
}

Result<void> show(Session& session, const SharingOptions& options) {
  if (!options.exact.empty()) return show_exact_sharing(options.exact, session);
  if (options.history) return show_history(session);
  if (options.verify) return verify(session, options.timeout_s);
  const std::string body = TRY(session.placer.get("/sharing", answer_deadline()));
  Sharing sharing = TRY(parse_sharing(body));
  if (!options.plot.empty()) {
    TRY(write_heat_map(sharing, options.plot));
    session.talk << "wrote " << options.plot << '\n';
  }
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
  const auto options = std::make_shared<SharingOptions>();
  CLI::App& sharing = subcommands.add(
      root, "sharing",
      "Show the memory that hosts share, predicted and achieved, and each pair of VMs",
      [options](Session& session) { return show(session, *options); });
  sharing.add_option("--plot", options->plot, "Also draw the pairs as a heat map, in SVG")
      ->type_name(kFilePath);
  sharing
      .add_option("--exact", options->exact,
                  "Compare raw RAM images instead, exactly and without the placer")
      ->type_name("FILE...");
  sharing.add_flag("--verify", options->verify,
                   "Wait until KSM has merged what it can, and compare it with the prediction");
  sharing.add_option("--timeout", options->timeout_s, "How long --verify waits, in seconds")
      ->type_name("SECONDS")
      ->capture_default_str();
  sharing.add_flag("--history", options->history,
                   "Show earlier predictions and what KSM made of them, the newest first");
}

}  // namespace samepage::cli
