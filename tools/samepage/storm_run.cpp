#include "tools/samepage/storm_run.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

constexpr auto kLookInterval = std::chrono::milliseconds(100);

struct Tally {
  std::size_t vms = 0;
  std::size_t done = 0;
  std::size_t failed = 0;
};

bool is_done(const Storm::Vm& vm) {
  return vm.state != "waiting" && vm.state != "booting";
}

bool is_well(const Storm::Vm& vm) {
  return vm.state == "running" || vm.state == "was_there";
}

std::map<std::string, Tally> tally(const Storm& storm) {
  std::map<std::string, Tally> by_host;
  for (const Storm::Vm& vm : storm.vms) {
    for (Tally* one : {&by_host[vm.host], &by_host[""]}) {
      ++one->vms;
      one->done += is_done(vm) ? 1 : 0;
      one->failed += is_done(vm) && !is_well(vm) ? 1 : 0;
    }
  }
  return by_host;
}

std::string show(const Tally& tally) {
  std::string text = std::to_string(tally.done) + " of " + std::to_string(tally.vms);
  if (tally.failed > 0) text += ", " + std::to_string(tally.failed) + " failed";
  return text;
}

/// Says what has changed on each host, and draws how far the whole is.
class Display {
 public:
  explicit Display(Session& session) : bar_(session.talk, session.talk_width) {}

  void show_progress(const Storm& storm) {
    const auto by_host = tally(storm);
    for (const auto& [host, count] : by_host) {
      if (host.empty()) continue;
      const bool complete = count.done == count.vms;
      if (complete && !said_[host]) bar_.say(printable(host) + ": " + show(count) + " VMs");
      said_[host] = complete;
    }
    const Tally& all = by_host.at("");
    std::string detail = show(all) + " VMs";
    for (const auto& [host, count] : by_host) {
      if (!host.empty()) detail += ", " + printable(host) + " " + std::to_string(count.done);
    }
    bar_.show("boot", static_cast<double>(all.done) / static_cast<double>(all.vms), detail);
  }

  void say(const std::string& sentence) { bar_.say(sentence); }
  void clear() { bar_.clear(); }

 private:
  ProgressBar bar_;
  std::map<std::string, bool> said_;
};

struct Followed {
  Storm storm;
  std::string json;
};

Result<Followed> follow(const std::string& id, Session& session) {
  const std::string path = "/storms/" + http::url_encoded(id);
  Interrupts interrupts;
  Display display(session);
  bool cancelled = false;
  while (true) {
    Followed followed;
    const auto body = session.placer.get(path, answer_deadline());
    if (!body) {
      return tl::unexpected(
          Error(body.error().code(),
                body.error().message() + "; run the same command again to complete the boots"));
    }
    followed.json = *body;
    followed.storm = TRY(parse_storm(*body));
    display.show_progress(followed.storm);
    if (followed.storm.state == "ended") return followed;
    if (interrupts.count() > 1) {
      return fail(Errc::kUnavailable, "left the boots that go on to the placer");
    }
    if (interrupts.count() == 1 && !cancelled) {
      cancelled = true;
      display.say("boots that have begun go on, the others are left out; Ctrl-C again leaves now");
      TRY(session.placer.send("POST", path + "/cancel", "", answer_deadline()));
    }
    std::this_thread::sleep_for(kLookInterval);
  }
}

void print_hosts(const Storm& storm, Session& session) {
  Table table({{"HOST"}, {"VMS", Align::kRight}, {"FETCHED", Align::kRight}, {"WHY"}});
  for (const Storm::Host& host : storm.hosts) {
    table.add_row(
        {host.name, show_count(host.vms), show_bytes_as_mib(host.fetched_bytes), host.reason});
  }
  table.print(session.out, session.out_width);
}

void print_vms(const Storm& storm, Session& session) {
  Table table({{"VM"},
               {"HOST"},
               {"STATE"},
               {"READY", Align::kRight},
               {"OWN MEMORY", Align::kRight},
               {"REASON"}});
  for (const Storm::Vm& vm : storm.vms) {
    const bool booted = vm.state == "running";
    table.add_row({vm.name, vm.host, vm.state, booted ? show_ms(vm.ready_s.value_or(0) * 1e3) : "-",
                   booted ? show_mib(vm.own_mib) : "-", vm.error.empty() ? "-" : vm.error});
  }
  table.print(session.out, session.out_width);
}

}  // namespace

void print_storm(const Storm& storm, const std::string& json, Session& session) {
  if (session.json) {
    session.out << json << '\n';
    return;
  }
  print_vms(storm, session);
  session.out << '\n';
  print_hosts(storm, session);
}

Result<void> follow_storm(const std::string& id, Session& session) {
  const Followed followed = TRY(follow(id, session));
  const Storm& storm = followed.storm;
  print_storm(storm, followed.json, session);
  const auto well =
      static_cast<std::size_t>(std::count_if(storm.vms.begin(), storm.vms.end(), is_well));
  session.talk << well << " of " << storm.vms.size() << " VMs in "
               << show_ms(storm.total_s.value_or(0) * 1e3) << ", decided in "
               << show_ms(storm.decided_ms) << '\n';
  if (well == storm.vms.size()) return {};
  return fail(Errc::kUnavailable, std::to_string(storm.vms.size() - well) +
                                      " VMs were not booted; run the same command again to "
                                      "complete it");
}

}  // namespace samepage::cli
