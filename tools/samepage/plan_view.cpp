#include "tools/samepage/plan_view.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/page_count.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

std::string counted(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

void print_achieved(const Plan& plan, Session& session) {
  if (!plan.achieved_before_mib || !plan.achieved_after_mib) return;
  session.out << "Achieved sharing " << show_mib(plan.achieved_before_mib) << " before the plan, "
              << show_mib(plan.achieved_after_mib) << " when it ended; KSM goes on merging\n";
}

void print_moves(const Plan& plan, Session& session) {
  Table table({{"MOVE"}, {"FROM"}, {"TO"}, {"STATE"}, {"GAIN", Align::kRight}, {"WHY"}});
  for (const Move& move : plan.moves) {
    table.add_row({move.vm, move.source, move.target, move.state, show_mib_change(move.gain_mib),
                   move.reason});
  }
  table.print(session.out, session.out_width);
}

std::string term_text(const std::map<std::string, double>& terms, const char* name) {
  const auto found = terms.find(name);
  return found == terms.end() ? "-" : fmt::format("{:.2f}", found->second);
}

void print_terms(const Plan& plan, Session& session) {
  session.out << "\nWeights of the terms, which are from 0 to 1:";
  for (const auto& [name, weight] : plan.weights) {
    session.out << fmt::format(" {} {:.2g}", printable(name), weight);
  }
  session.out << '\n';
  Table table({{"MOVE"},
               {"SHARING", Align::kRight},
               {"HOSTS", Align::kRight},
               {"MOVEMENT", Align::kRight},
               {"BALANCE", Align::kRight},
               {"COST", Align::kRight}});
  for (const Move& move : plan.moves) {
    table.add_row({move.vm, term_text(move.terms, "sharing"), term_text(move.terms, "hosts"),
                   term_text(move.terms, "movement"), term_text(move.terms, "balance"),
                   show_mib(move.cost_mib)});
  }
  table.print(session.out, session.out_width);
}

void print_hosts(const Plan& plan, Session& session) {
  if (!plan.hosts_before || !plan.hosts_after) return;
  if (plan.hosts_before == plan.hosts_after && !plan.hosts_packed) return;
  session.out << "Hosts in use " << show_count(plan.hosts_before) << " now, "
              << show_count(plan.hosts_after) << " afterwards";
  if (plan.hosts_packed) {
    session.out << "; packed anew, once all is merged: " << show_count(plan.hosts_packed);
  }
  if (plan.hosts_bound) {
    session.out << "; no placement needs fewer than " << show_count(plan.hosts_bound);
  }
  session.out << '\n';
}

void print_stays(const Plan& plan, Session& session) {
  Table table({{"STAYS"}, {"ON"}, {"WHY"}});
  for (const Stay& stay : plan.stays) table.add_row({stay.vm, stay.host, stay.reason});
  table.print(session.out, session.out_width);
}

void print_results(const Plan& plan, Session& session) {
  Table table({{"VM"},
               {"FROM"},
               {"TO"},
               {"STATE"},
               {"STREAM", Align::kRight},
               {"WIRE", Align::kRight},
               {"OF STREAM", Align::kRight},
               {"REFS", Align::kRight},
               {"DOWNTIME", Align::kRight},
               {"TOTAL", Align::kRight}});
  for (const Move& move : plan.moves) {
    table.add_row({move.vm, move.source, move.target, move.state,
                   show_bytes_as_mib(move.stream_bytes), show_bytes_as_mib(move.wire_bytes),
                   show_share(move.wire_bytes, move.stream_bytes), show_count(move.page_refs),
                   show_ms(move.downtime_ms), show_ms(move.total_ms)});
  }
  table.print(session.out, session.out_width);
  for (const Move& move : plan.moves) {
    const double pages = move.template_pages.value_or(0);
    if (pages <= 0) continue;
    session.out << move.vm << " goes on sharing " << show_mib(pages / kPagesPerMib)
                << " with its template.\n";
  }
  for (const Move& move : plan.moves) {
    if (move.disk_bytes.value_or(0) <= 0) continue;
    session.out << move.vm << " took " << show_bytes_as_mib(move.disk_bytes)
                << " of its disks along.\n";
  }
}

/// Where the placer sees the VM of `move` now, as a sentence.
std::string whereabouts(const Move& move, const Result<std::vector<Vm>>& vms) {
  const std::string unknown =
      "Where it runs is not known; `samepage vms` tells when its hosts answer.";
  if (!vms) return unknown;
  const auto vm = std::find_if(vms->begin(), vms->end(), [&](const Vm& each) {
    return move.uuid.empty() ? each.name == move.vm : each.uuid == move.uuid;
  });
  if (vm == vms->end() || vm->host.empty()) return unknown;
  return "It is on " + vm->host + " (" + (vm->state.empty() ? "state unknown" : vm->state) + ").";
}

Result<std::vector<Vm>> ask_for_vms(const Session& session) {
  const std::string body = TRY(session.placer.get("/vms", answer_deadline()));
  return parse_vms(body);
}

void explain_failures(const Plan& plan, Session& session) {
  const auto failed = [](const Move& move) { return move.state == "failed"; };
  if (std::none_of(plan.moves.begin(), plan.moves.end(), failed)) return;
  const Result<std::vector<Vm>> vms = ask_for_vms(session);
  for (const Move& move : plan.moves) {
    if (!failed(move)) continue;
    const std::string why = move.error.empty() ? "no reason was given" : move.error;
    session.talk << printable(move.vm) << " did not move: " << printable(why) << ". "
                 << printable(whereabouts(move, vms)) << '\n';
  }
}

}  // namespace

void print_plan(const StoredPlan& stored, Session& session, PlanDetail detail) {
  if (session.json) {
    session.out << stored.json << '\n';
    return;
  }
  const Plan& plan = stored.plan;
  session.out << "Plan " << (plan.id.empty() ? "" : printable(plan.id) + " ") << "("
              << printable(plan.state) << "): " << counted(plan.moves.size(), "move") << ", "
              << counted(plan.stays.size(), "VM") << " left alone\n"
              << "Predicted sharing " << show_mib(plan.shared_before_mib) << " now, "
              << show_mib(plan.shared_after_mib) << " afterwards ("
              << show_mib_change(plan.gain_mib) << ")\n";
  print_achieved(plan, session);
  print_hosts(plan, session);
  if (!plan.summary.empty()) session.out << printable(plan.summary) << '\n';
  if (!plan.moves.empty()) {
    session.out << '\n';
    print_moves(plan, session);
    if (detail == PlanDetail::kTerms) print_terms(plan, session);
  }
  if (!plan.stays.empty()) {
    session.out << '\n';
    print_stays(plan, session);
  }
  for (const std::string& note : plan.notes) session.out << printable(note) << '\n';
}

Result<void> report_outcome(const StoredPlan& stored, Session& session) {
  const Plan& plan = stored.plan;
  if (session.json) {
    session.out << stored.json << '\n';
  } else if (!plan.moves.empty()) {
    print_results(plan, session);
    print_achieved(plan, session);
  }
  const auto done = static_cast<std::size_t>(std::count_if(
      plan.moves.begin(), plan.moves.end(), [](const Move& move) { return move.state == "done"; }));
  if (plan.state == "done" && done == plan.moves.size()) return {};

  explain_failures(plan, session);
  return fail(Errc::kUnavailable, "plan " + plan.id + " ended " + plan.state + ": " +
                                      std::to_string(done) + " of " +
                                      counted(plan.moves.size(), "move") + " done");
}

}  // namespace samepage::cli
