#include <algorithm>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/curve_keys.h"
#include "tools/samepage/api_messages.h"
#include "tools/samepage/fork_checks.h"
#include "tools/samepage/host_checks.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Verdict = Check::Verdict;

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      return "fail";
  }
  return "fail";
}

/// "placer" and "enrolled", when the placer runs on this host.
std::vector<Check> check_enrollment(const HostPlaces& places, const Session& session) {
  if (session.socket_path.empty() || ::access(session.socket_path.c_str(), F_OK) != 0) return {};
  const Result<std::string> body = session.placer.get("/hosts", answer_deadline());
  if (!body) {
    return {{.name = "placer",
             .verdict = Verdict::kFail,
             .found = body.error().message(),
             .mend = "see `systemctl status samepage-placer`"}};
  }
  std::vector<Check> checks = {{.name = "placer",
                                .verdict = Verdict::kOk,
                                .found = "answers at " + session.socket_path,
                                .mend = {}}};
  const Result<std::vector<Host>> hosts = parse_hosts(*body);
  const Result<CurveKeyPair> keys = load_curve_keys(places.agent_key);
  if (!hosts || !keys) return checks;
  const auto host = std::find_if(hosts->begin(), hosts->end(), [&](const Host& each) {
    return each.public_key == keys->public_key;
  });
  if (host == hosts->end()) {
    checks.push_back({.name = "enrolled",
                      .verdict = Verdict::kFail,
                      .found = "no host is enrolled with this agent's key",
                      .mend = "`samepage hosts enroll NAME " + keys->public_key + "`"});
  } else {
    const bool up = host->state == "up";
    checks.push_back({.name = "enrolled",
                      .verdict = up ? Verdict::kOk : Verdict::kWarn,
                      .found = "as " + host->name + ", " + host->state,
                      .mend = up ? "" : "see `systemctl status samepaged`"});
  }
  return checks;
}

void print_json(const std::vector<Check>& checks, Session& session) {
  auto list = nlohmann::json::array();
  for (const Check& check : checks) {
    list.push_back({{"name", check.name},
                    {"verdict", word(check.verdict)},
                    {"found", check.found},
                    {"mend", check.mend}});
  }
  session.out << nlohmann::json({{"checks", list}})
                     .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
              << '\n';
}

void print_text(const std::vector<Check>& checks, Session& session) {
  Table table({{"VERDICT"}, {"CHECK"}, {"FOUND"}});
  for (const Check& check : checks) {
    const std::string advice = check.mend.empty() ? "" : "; " + check.mend;
    table.add_row({word(check.verdict), check.name, check.found + advice});
  }
  table.print(session.out, session.out_width);
}

Result<void> mend(Session& session, const ForkPlaces& places) {
  const auto done = TRY(mend_forks(places));
  for (const std::string& one : done) session.talk << one << '\n';
  if (!done.empty()) session.talk << "restart libvirtd now; guests do not notice\n";
  return {};
}

Result<void> examine(Session& session, const HostPlaces& places, bool fix) {
  if (fix) TRY(mend(session, {}));
  std::vector<Check> checks = check_hypervisor(places);
  for (const auto& more : {check_kernel(places), check_forks({}), check_keys(places),
                           check_enrollment(places, session)}) {
    checks.insert(checks.end(), more.begin(), more.end());
  }
  if (session.json) {
    print_json(checks, session);
  } else {
    print_text(checks, session);
  }
  const auto failed = std::count_if(checks.begin(), checks.end(), [](const Check& check) {
    return check.verdict == Verdict::kFail;
  });
  if (failed == 0) return {};
  return fail(Errc::kInvalid, std::to_string(failed) + " of " + std::to_string(checks.size()) +
                                  " checks failed: this host cannot take part yet");
}

}  // namespace

void add_doctor(CLI::App& root, Subcommands& subcommands) {
  const auto places = std::make_shared<HostPlaces>();
  const auto fix = std::make_shared<bool>(false);
  CLI::App& doctor =
      subcommands.add(root, "doctor", "Check what this host needs for an agent, and how to mend it",
                      [places, fix](Session& session) { return examine(session, *places, *fix); });
  doctor.add_flag("--fix", *fix, "Install libvirt's hook for forks and choose where RAM files go");
  doctor.add_option("--libvirt", places->libvirt_uri, "The libvirt to ask")
      ->type_name("URI")
      ->capture_default_str();
  doctor.add_option("--agent-key", places->agent_key, "The agent's key pair")
      ->type_name(kFilePath)
      ->capture_default_str();
  doctor.add_option("--placer-key", places->placer_key, "The placer's public key")
      ->type_name(kFilePath)
      ->capture_default_str();
}

}  // namespace samepage::cli
