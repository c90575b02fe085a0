// The promise under test: each subcommand of the real program, against a placer that answers what
// the test scripted: what is printed where, in text and JSON, and with which exit code.

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/curve_keys.h"
#include "tests/tools/child_process.h"
#include "tests/tools/temp_dir.h"
#include "tools/samepage-placer/http_server.h"

namespace samepage::cli {
namespace {

using samepage::testing::ChildProcess;
using samepage::testing::TempDir;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Output = ChildProcess::Output;

constexpr const char* kHosts =
    R"({"hosts":[{"name":"alpha","state":"up","public_key":"k1","vms":2,"memory_mib":7951.5,)"
    R"("resident_mib":812,"distinct_mib":600,"ksm_shared_mib":212,"predicted_shared_mib":230,)"
    R"("report_age_s":4,"hypervisor_version":"QEMU 7.2.22"},)"
    R"({"name":"beta","state":"never_seen","memory_mib":null}]})";
constexpr const char* kVms =
    R"({"vms":[{"name":"web3","uuid":"u3","host":"alpha","state":"running","memory_mib":256,)"
    R"("present_mib":190.4,"zero_mib":3.25,"duplicate_mib":1,"unique_mib":186,)"
    R"("own_mib":44.5,"template_mib":133,"ksm_mib":21,)"
    R"("sharing_domain":"default","fingerprint_age_s":61,)"
    R"("shares_most_with":{"vm":"web1","mib":150.2}},)"
    R"({"name":"db1","uuid":"u4","host":"beta","state":"paused","shares_most_with":null}]})";

std::string move_json(const std::string& vm, const std::string& state, const std::string& error) {
  return R"({"index":0,"vm":")" + vm + R"(","uuid":"u3","source":"alpha","target":"beta",)" +
         R"("reason":"shares 150 MiB with web1 on beta","gain_mib":150.2,"state":")" + state +
         R"(","error":)" + (error.empty() ? "null" : "\"" + error + "\"") +
         (state == "planned"
              ? ""
              : R"(,"stream_bytes":211812352,"wire_bytes":11534336,"page_refs":48000,"template_pages":1024,)"
                R"("downtime_ms":213,"total_ms":1840)") +
         "}";
}

std::string plan_json(const std::string& id, const std::string& state, const std::string& moves) {
  return R"({"id":")" + id + R"(","state":")" + state +
         R"(","created_at":"2026-01-02T03:04:05Z","predicted_shared_before_mib":80,)" +
         R"("predicted_shared_after_mib":230.2,"gain_mib":150.2,"summary":"web3 joins web1",)" +
         R"("achieved_shared":)" +
         (state == "done" ? R"({"before_mib":71,"after_mib":204})" : "null") + R"(,"moves":[)" +
         moves + R"(],"stays":[{"vm":"db1","host":"beta","reason":"paused"}]})";
}

class SubcommandsTest : public ::testing::Test {
 protected:
  /// Answers "METHOD PATH" with `body`; the paths are those after /api/v1.
  void answer(const std::string& request, const std::string& body) {
    const std::size_t space = request.find(' ');
    routes_.push_back({request.substr(0, space), "/api/v1" + request.substr(space + 1),
                       [this, request, body](const http::Request& received) {
                         note(request, received.body);
                         return Result<http::Response>(http::Response{.body = body});
                       }});
  }

  void refuse(const std::string& request, const http::Response& response) {
    const std::size_t space = request.find(' ');
    routes_.push_back({request.substr(0, space), "/api/v1" + request.substr(space + 1),
                       [this, request, response](const http::Request& received) {
                         note(request, received.body);
                         return Result<http::Response>(response);
                       }});
  }

  void start() {
    auto server = http::HttpServer::create({.socket_path = socket_}, routes_);
    ASSERT_TRUE(server) << server.error().message();
    server_ = *std::move(server);
  }

  std::vector<std::string> command(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), SAMEPAGE_PROGRAM);
    return arguments;
  }

  std::map<std::string, std::string> environment() const { return {{"SAMEPAGE_SOCKET", socket_}}; }

  // Before the members of derived fixtures go, which handlers use.
  void TearDown() override { server_.reset(); }

  Output samepage(const std::vector<std::string>& arguments) {
    if (!server_) start();
    return testing::run(command(arguments), environment());
  }

  void note(const std::string& request, const std::string& body) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(body.empty() ? request : request + " " + body);
  }

  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  TempDir dir_;
  std::string socket_ = dir_.file("placer.sock");
  std::vector<http::Route> routes_;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::unique_ptr<http::HttpServer> server_;  // Last: its handlers use the above.
};

TEST_F(SubcommandsTest, SharingOfRamImagesIsExactAndNeedsNoPlacer) {
  const TempDir folder;
  const std::string image =
      folder.write("a.ram", std::string(3 * 4096, 'x') + std::string(4096, 'y'));

  const Output found = samepage({"sharing", "--json", "--exact", image, image});
  EXPECT_EQ(found.exit_code, 0) << found.err;
  EXPECT_EQ(found.out,
            R"({"between_mib":0.0078125,"pairs":[{"a":")" + image + R"(","b":")" + image +
                R"(","shared_mib":0.0078125}],"total_mib":0.0234375,"within_mib":0.015625,)"
                R"("zero_mib":0.0})"
                "\n");

  const Output torn = samepage({"sharing", "--exact", "/etc/hostname"});
  EXPECT_EQ(torn.exit_code, 1);
  EXPECT_NE(torn.err.find("not a raw RAM image"), std::string::npos) << torn.err;
}

TEST_F(SubcommandsTest, DivergenceRefusesWhatCannotBeBootedAndSaysHowToMendIt) {
  const auto refusal = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "divergence");
    const Output output = samepage(arguments);
    EXPECT_EQ(output.exit_code, 1);
    return output.err;
  };

  EXPECT_THAT(refusal({}), HasSubstr("name an IMAGE of the store, or a --kernel"));
  EXPECT_THAT(refusal({"debian", "--boots", "1"}), HasSubstr("--boots is from 2 to 32"));
  EXPECT_THAT(refusal({"debian", "--memory", "8"}), HasSubstr("--memory is 32 MiB at least"));
  EXPECT_THAT(refusal({"debian", "--with", "aslr"}), HasSubstr("use nokaslr, fixed-seeds or"));
  EXPECT_THAT(refusal({"debian", "--at", "900"}), HasSubstr("--at is beyond --time-max"));
  EXPECT_THAT(refusal({"debian", "--accel", "kvm", "--with", "fixed-clock"}),
              HasSubstr("need --accel tcg"));
  EXPECT_THAT(refusal({"debian", "--store", dir_.file("none")}), HasSubstr("none"));
}

TEST_F(SubcommandsTest, HostsListsThemWithWhatIsKnown) {
  answer("GET /hosts", kHosts);

  const Output output = samepage({"hosts"});

  EXPECT_EQ(output.exit_code, 0);
  EXPECT_THAT(output.out, HasSubstr("alpha  up            2  7952 MiB"));
  EXPECT_THAT(output.out, HasSubstr("beta   never_seen    -         -"));
  EXPECT_EQ(output.err, "");
}

TEST_F(SubcommandsTest, JsonIsThePlacersOwn) {
  answer("GET /hosts", kHosts);
  answer("GET /vms", kVms);
  answer("GET /sharing", R"({"hosts":[],"pairs":[],"new_key":1})");

  EXPECT_EQ(samepage({"hosts", "--json"}).out, std::string(kHosts) + "\n");
  EXPECT_EQ(samepage({"--json", "vms"}).out, std::string(kVms) + "\n");
  EXPECT_EQ(samepage({"sharing", "--json"}).out, "{\"hosts\":[],\"pairs\":[],\"new_key\":1}\n");
}

TEST_F(SubcommandsTest, NamesAreOneALineForScripts) {
  answer("GET /hosts", kHosts);
  answer("GET /vms", kVms);

  EXPECT_EQ(samepage({"hosts", "--names"}).out, "alpha\nbeta\n");
  EXPECT_EQ(samepage({"vms", "--names"}).out, "web3\ndb1\n");
}

TEST_F(SubcommandsTest, HostsEnrollAndForgetPassTheNameOn) {
  answer("POST /hosts", R"({"name":"gamma","state":"never_seen"})");
  answer("DELETE /hosts/NAME", "{}");

  const Output enrolled = samepage({"hosts", "enroll", "gamma", "KEY"});
  const Output forgotten = samepage({"hosts", "forget", "gamma"});

  EXPECT_EQ(enrolled.exit_code, 0) << enrolled.err;
  EXPECT_THAT(enrolled.err, HasSubstr("enrolled gamma"));
  EXPECT_EQ(forgotten.exit_code, 0) << forgotten.err;
  EXPECT_THAT(requests(), ElementsAre(R"(POST /hosts {"name":"gamma","public_key":"KEY"})",
                                      "DELETE /hosts/NAME"));
}

TEST_F(SubcommandsTest, ThePlacersSentenceIsPassedOn) {
  refuse("DELETE /hosts/NAME",
         http::error_response(Error(Errc::kNotFound, "no host named gamma; `samepage hosts`")));
  refuse("POST /migrations",
         http::error_response(Error(Errc::kNotFound, "no VM named web9; `samepage vms`")));
  refuse("GET /plans/ID", http::error_response(Error(Errc::kNotFound, "no plan 7")));

  const Output host = samepage({"hosts", "forget", "gamma"});
  const Output vm = samepage({"migrate", "web9", "--to", "beta"});
  const Output plan = samepage({"plan", "show", "7"});

  EXPECT_EQ(host.exit_code, 1);
  EXPECT_EQ(host.err, "samepage: no host named gamma; `samepage hosts`\n");
  EXPECT_EQ(vm.exit_code, 1);
  EXPECT_EQ(vm.err, "samepage: no VM named web9; `samepage vms`\n");
  EXPECT_EQ(plan.exit_code, 1);
  EXPECT_EQ(plan.err, "samepage: no plan 7\n");
}

TEST_F(SubcommandsTest, VmsShowWithWhomTheyShareMost) {
  answer("GET /vms", kVms);

  const Output output = samepage({"vms"});

  EXPECT_EQ(output.exit_code, 0);
  EXPECT_THAT(output.out, HasSubstr("web1 (150 MiB)"));
  EXPECT_THAT(output.out, HasSubstr("3.2 MiB"));
}

TEST_F(SubcommandsTest, VmsShowToWhomTheirMemoryBelongs) {
  answer("GET /vms", kVms);

  const Output output = samepage({"vms"});

  EXPECT_THAT(output.out, ContainsRegex("OWN +TEMPLATE +KSM"));
  EXPECT_THAT(output.out, ContainsRegex("186 MiB +44 MiB +133 MiB +21 MiB"));
}

TEST_F(SubcommandsTest, TheHistoryOfAVmIsHowItsMemoryWent) {
  const std::string history =
      R"({"vm":"web3","uuid":"u3","points":[{"at":"2026-01-02T03:04:05Z","host":"alpha",)"
      R"("own_mib":120,"template_mib":60,"ksm_mib":0},{"at":"2026-01-02T03:00:05Z",)"
      R"("host":"alpha","own_mib":2.5,"template_mib":177,"ksm_mib":null}]})";
  answer("GET /vms/NAME/history", history);

  const Output output = samepage({"vms", "--history", "web3"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, ContainsRegex("AT +HOST +OWN +TEMPLATE +KSM"));
  EXPECT_THAT(output.out, ContainsRegex("2026-01-02T03:00:05Z +alpha +2.5 MiB +177 MiB +-"));
  EXPECT_EQ(samepage({"vms", "--history", "web3", "--json"}).out, history + "\n");
  EXPECT_EQ(samepage({"vms", "--history", "web3", "--what-if", "web3=beta"}).exit_code, 2);
}

TEST_F(SubcommandsTest, SharingShowsHostsMatrixAndPairs) {
  answer("GET /sharing",
         R"({"hosts":[{"name":"alpha","vms":3,"predicted_shared_mib":230,"low_mib":221,)"
         R"("high_mib":239,"zero_mib":12,"within_mib":8,"between_mib":210,)"
         R"("achieved_shared_mib":207,"oldest_fingerprint_age_s":31}],"pairs":[)"
         R"({"a":"db1","b":"web1","mib":4,"low_mib":3,"high_mib":5},)"
         R"({"a":"web1","b":"web3","mib":150,"low_mib":141,"high_mib":159,"age_s":7},)"
         R"({"a":"db1","b":"web3","mib":5,"low_mib":4,"high_mib":6}]})");

  const Output output = samepage({"sharing"});

  EXPECT_EQ(output.exit_code, 0);
  EXPECT_THAT(output.out, HasSubstr("alpha    3  12 MiB  8.0 MiB  210 MiB    230 MiB  221-239 MiB"
                                    "   207 MiB          90 %     31 s\n"));
  EXPECT_THAT(output.out, HasSubstr("web3    5.0 MiB  150 MiB         \n"));
  EXPECT_THAT(output.out, HasSubstr("web1  web3  150 MiB  141-159 MiB      7 s\n"));
  EXPECT_LT(output.out.find("web1  web3  150"), output.out.find("db1   web3  5.0"));
}

TEST_F(SubcommandsTest, VmsSaysWhatWouldBeSharedElsewhere) {
  answer("GET /what-if",
         R"({"moves":[],"gain_mib":-12.5,"hosts":[{"name":"alpha","before_mib":200,)"
         R"("after_mib":100,"low_mib":95,"high_mib":105,"oldest_fingerprint_age_s":4}]})");

  const Output output = samepage({"vms", "--what-if", "web 1=beta", "--what-if", "db=alpha"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, HasSubstr("alpha  200 MiB      100 MiB  95-105 MiB      4 s\n"));
  EXPECT_THAT(output.err, HasSubstr("in all -12 MiB"));
}

TEST_F(SubcommandsTest, ScanNamesTheHostsThatFailed) {
  answer("POST /scan", R"({"hosts":3,"failed":[{"host":"beta","message":"is down"}]})");

  const Output output = samepage({"scan"});

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_EQ(output.err, "beta: is down\nsamepage: 1 of 3 hosts could not be scanned\n");
}

TEST_F(SubcommandsTest, ScanIsDoneWhenAllHostsAre) {
  answer("POST /scan", R"({"hosts":3,"failed":[]})");

  EXPECT_EQ(samepage({"scan"}).exit_code, 0);
}

TEST_F(SubcommandsTest, PlanGivesAReasonForEveryMoveAndStay) {
  answer("POST /plans", plan_json("p7", "proposed", move_json("web3", "planned", "")));

  const Output output = samepage({"plan", "--gain-min", "16"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), ElementsAre(R"(POST /plans {"gain_min_mib":16.0})"));
  EXPECT_THAT(output.out,
              StartsWith("Plan p7 (proposed): 1 move, 1 VM left alone\n"
                         "Predicted sharing 80 MiB now, 230 MiB afterwards (+150 MiB)"));
  EXPECT_THAT(output.out, HasSubstr("web3  alpha  beta  planned  +150 MiB  shares 150 MiB with"));
  EXPECT_THAT(output.out, HasSubstr("db1    beta  paused\n"));
  EXPECT_THAT(output.err, HasSubstr("samepage apply p7"));
}

TEST_F(SubcommandsTest, PlanShowAndListReadStoredPlans) {
  const std::string plan = plan_json("p7", "done", move_json("web3", "done", ""));
  answer("GET /plans/ID", plan);
  answer("GET /plans", R"({"plans":[)" + plan + "]}");

  EXPECT_THAT(samepage({"plan", "show", "p7"}).out,
              StartsWith("Plan p7 (done): 1 move, 1 VM left alone\n"
                         "Predicted sharing 80 MiB now, 230 MiB afterwards (+150 MiB)\n"
                         "Achieved sharing 71 MiB before the plan, 204 MiB when it ended; "
                         "KSM goes on merging\n"
                         "web3 joins web1\n"));
  EXPECT_EQ(samepage({"plan", "show", "p7", "--json"}).out, plan + "\n");
  EXPECT_EQ(samepage({"plan", "list"}).out,
            "PLAN  STATE  MOVES      GAIN  CREATED\n"
            "p7    done       1  +150 MiB  2026-01-02T03:04:05Z\n");
  EXPECT_EQ(samepage({"plan", "list", "--ids"}).out, "p7\n");
}

/// A placer with one plan, "p7", that runs as soon as it is applied and ends as the test says.
class PlanRunTest : public SubcommandsTest {
 protected:
  PlanRunTest() {
    answer("GET /vms", kVms);
    routes_.push_back({"GET", "/api/v1/plans", [this](const http::Request&) {
                         return json(R"({"plans":[)" + plan_json("p9", "done", "") + "," + plan() +
                                     "]}");
                       }});
    routes_.push_back(
        {"GET", "/api/v1/plans/ID", [this](const http::Request&) { return json(plan()); }});
    for (const char* request : {"/api/v1/plans/ID/apply", "/api/v1/migrations"}) {
      routes_.push_back({"POST", request, [this](const http::Request& received) {
                           note("POST " + received.path, received.body);
                           set_state("running");
                           return json(plan());
                         }});
    }
    routes_.push_back({"POST", "/api/v1/plans/ID/cancel", [this](const http::Request& received) {
                         note("POST " + received.path, received.body);
                         if (obeys_cancel_) end("cancelled", move_json("web3", "skipped", ""));
                         return json(plan());
                       }});
    routes_.push_back({"GET", "/api/v1/events", [this](const http::Request& received) {
                         note("GET /events " + received.query.at("since"), "");
                         return Result<http::Response>(http::ndjson(events()));
                       }});
  }

  static Result<http::Response> json(const std::string& body) {
    return http::Response{.body = body};
  }

  std::string plan() {
    const std::lock_guard lock(mutex_);
    return plan_json("p7", state_, moves_);
  }

  void set_state(const std::string& state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    changed_.notify_all();
  }

  void end(const std::string& state, const std::string& moves) {
    {
      const std::lock_guard lock(mutex_);
      moves_ = moves;
    }
    set_state(state);
  }

  /// One event and one piece of progress, then `ended_as_` if set, else silence until the plan
  /// has ended.
  http::StreamSource events() {
    return [this, sent = false](Deadline deadline) mutable -> std::optional<std::string> {
      if (!sent) {
        sent = true;
        return R"({"id":41,"at":"t","kind":"move","text":"moving web3 to beta","plan":"p7"})"
               "\n"
               R"({"id":42,"at":"t","kind":"move","text":"","vm":"web3","progress":{)"
               R"("phase":"ram","stream_bytes":5,"wire_bytes":1,"page_refs":1,)"
               R"("bytes_remaining":5}})"
               "\n";
      }
      if (!ended_as_.empty()) end(ended_as_, ended_moves_);
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, deadline, [this] { return state_ != "running"; });
      return state_ == "running" ? std::optional(std::string()) : std::nullopt;
    };
  }

  std::string ended_as_;
  std::string ended_moves_;
  bool obeys_cancel_ = true;

 private:
  std::condition_variable changed_;
  std::string state_ = "proposed";
  std::string moves_ = move_json("web3", "planned", "");
};

TEST_F(PlanRunTest, ApplyTakesTheNewestProposedPlanAndShowsItsCost) {
  ended_as_ = "done";
  ended_moves_ = move_json("web3", "done", "");

  const Output output = samepage({"apply"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), ElementsAre("POST /api/v1/plans/p7/apply", "GET /events 0"));
  EXPECT_THAT(output.err, HasSubstr("moving web3 to beta\n"));
  EXPECT_THAT(output.err, Not(HasSubstr("\033")));
  EXPECT_THAT(output.out, HasSubstr("web3  alpha  beta  done   202 MiB  11 MiB        5 %  48000"
                                    "    213 ms  1840 ms\n"));
  EXPECT_THAT(output.out, HasSubstr("web3 goes on sharing 4.0 MiB with its template."));
}

TEST_F(PlanRunTest, ApplyJsonIsThePlanAsItEnded) {
  ended_as_ = "done";
  ended_moves_ = move_json("web3", "done", "");

  const Output output = samepage({"apply", "p7", "--json"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_EQ(output.out, plan_json("p7", "done", ended_moves_) + "\n");
}

TEST_F(PlanRunTest, ADryRunMovesNothing) {
  const Output output = samepage({"apply", "--dry-run"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, HasSubstr("web3  alpha  beta  planned"));
  EXPECT_THAT(output.err, HasSubstr("nothing was moved"));
  EXPECT_TRUE(requests().empty());
}

TEST_F(PlanRunTest, ApplyWithoutAProposedPlanSaysHowToGetOne) {
  end("done", "");

  const Output output = samepage({"apply"});

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("`samepage plan` computes one"));
}

TEST_F(PlanRunTest, AFailedMoveSaysWhyAndWhereTheVmIs) {
  ended_as_ = "failed";
  ended_moves_ = move_json("web3", "failed", "beta ran out of memory");

  const Output output = samepage({"apply", "p7"});

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("web3 did not move: beta ran out of memory. "
                                    "It is on alpha (running).\n"));
  EXPECT_THAT(output.err, HasSubstr("samepage: plan p7 ended failed: 0 of 1 move done\n"));
  EXPECT_THAT(output.out, HasSubstr("failed"));
}

TEST_F(PlanRunTest, MigrateIsAPlanOfItsMoves) {
  ended_as_ = "done";
  ended_moves_ = move_json("web3", "done", "") + "," + move_json("web4", "done", "");

  const Output output = samepage({"migrate", "web3", "web4", "--to", "beta"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(),
              ElementsAre(R"(POST /api/v1/migrations {"target":"beta","vms":["web3","web4"]})",
                          "GET /events 0"));
  EXPECT_THAT(output.err, HasSubstr("moving web3, web4 to beta as plan p7"));
  EXPECT_THAT(output.out, HasSubstr("213 ms"));
}

TEST_F(PlanRunTest, ADryRunOfAMigrationMovesNothing) {
  const Output output = samepage({"migrate", "web3", "--to", "beta", "--dry-run"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), ElementsAre(HasSubstr(R"("dry_run":true)")));
  EXPECT_THAT(output.err, HasSubstr("nothing was moved; `samepage apply p7` carries it out"));
}

TEST_F(PlanRunTest, CtrlCGivesTheRunningMigrationUp) {
  start();
  ChildProcess migrate(command({"migrate", "web3", "--to", "beta"}), environment());
  ASSERT_TRUE(migrate.wait_for_err("moving web3 to beta\n"));

  migrate.interrupt();
  const Output output = migrate.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("giving the running move up"));
  EXPECT_THAT(requests(), Contains(R"(POST /api/v1/plans/p7/cancel {"at_once":true})"));
}

TEST_F(PlanRunTest, CancelGivesUpTheMigrationOfTheseVms) {
  set_state("running");

  const Output other = samepage({"migrate", "--cancel", "web9"});
  const Output output = samepage({"migrate", "--cancel", "web3"});
  const Output none = samepage({"migrate", "--cancel"});

  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("no migration of these VMs goes on"));
  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), Contains(R"(POST /api/v1/plans/p7/cancel {"at_once":true})"));
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("no migration goes on"));
}

TEST_F(PlanRunTest, TheFirstCtrlCStopsThePlanAfterTheRunningMove) {
  start();
  ChildProcess apply(command({"apply", "p7"}), environment());
  ASSERT_TRUE(apply.wait_for_err("moving web3"));

  apply.interrupt();
  const Output output = apply.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("stopping after the running move"));
  EXPECT_THAT(output.err, HasSubstr("plan p7 ended cancelled"));
  EXPECT_THAT(requests(), ElementsAre("POST /api/v1/plans/p7/apply", "GET /events 0",
                                      "POST /api/v1/plans/p7/cancel"));
}

TEST_F(PlanRunTest, TheSecondCtrlCLeavesThePlanToThePlacer) {
  obeys_cancel_ = false;
  start();
  ChildProcess apply(command({"apply", "p7"}), environment());
  ASSERT_TRUE(apply.wait_for_err("moving web3"));
  apply.interrupt();
  ASSERT_TRUE(apply.wait_for_err("stopping after the running move"));

  apply.interrupt();
  const Output output = apply.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("`samepage plan show p7` tells how it ends"));
}

TEST_F(PlanRunTest, ApplyLivesThroughARestartOfThePlacer) {
  start();
  ChildProcess apply(command({"apply", "p7"}), environment());
  ASSERT_TRUE(apply.wait_for_err("moving web3"));

  server_.reset();
  end("done", move_json("web3", "done", ""));
  start();
  const Output output = apply.finish();

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, HasSubstr("213 ms"));
}

TEST_F(SubcommandsTest, EventsPrintsSentencesOrThePlacersLines) {
  const std::string line =
      R"({"id":41,"at":"2026-01-02T03:04:05Z","kind":"x","text":"alpha is up"})";
  routes_.push_back(
      {"GET", "/api/v1/events", [this, line](const http::Request& request) {
         note("since " + request.query.at("since") + " follow " + request.query.at("follow"), "");
         return Result<http::Response>(http::Response{.body = line + "\n\n"});
       }});

  EXPECT_EQ(samepage({"events"}).out, "41  2026-01-02T03:04:05Z  alpha is up\n");
  EXPECT_EQ(samepage({"events", "--since", "7", "--json"}).out, line + "\n");
  EXPECT_THAT(requests(), ElementsAre("since 0 follow 0", "since 7 follow 0"));
}

TEST_F(PlanRunTest, FollowedEventsEndWithCtrlC) {
  set_state("running");
  start();
  ChildProcess events(command({"events", "--follow"}), environment());
  while (requests().empty()) std::this_thread::yield();

  events.interrupt();
  const Output output = events.finish();

  EXPECT_EQ(output.exit_code, 0) << output.err;
}

TEST_F(SubcommandsTest, AnEventThatIsNoneFails) {
  answer("GET /events", "garbage\n");

  EXPECT_EQ(samepage({"events"}).exit_code, 1);
}

TEST_F(SubcommandsTest, DoctorComparesTheAgentsKeyWithTheEnrolledOnes) {
  const auto keys = load_or_make_curve_keys(dir_.file("agent.key"));
  ASSERT_TRUE(keys);
  const std::vector<std::string> doctor = {"doctor",       "--json",
                                           "--libvirt",    "test:///default",
                                           "--agent-key",  dir_.file("agent.key"),
                                           "--placer-key", dir_.write("placer.pub", "none")};
  const auto body = std::make_shared<std::string>(R"({"hosts":[]})");
  routes_.push_back({"GET", "/api/v1/hosts", [this, body](const http::Request&) {
                       const std::lock_guard lock(mutex_);
                       return Result<http::Response>(http::Response{.body = *body});
                     }});

  const Output stranger = samepage(doctor);
  {
    const std::lock_guard lock(mutex_);
    *body = R"({"hosts":[{"name":"alpha","state":"up","public_key":")" + keys->public_key + "\"}]}";
  }
  const Output enrolled = samepage(doctor);

  EXPECT_EQ(stranger.exit_code, 1);
  EXPECT_THAT(stranger.out, HasSubstr("`samepage hosts enroll NAME " + keys->public_key + "`"));
  EXPECT_THAT(enrolled.out, HasSubstr(R"({"found":"as alpha, up","mend":"","name":"enrolled",)"
                                      R"("verdict":"ok"})"));
}

TEST_F(SubcommandsTest, WrongUsageIsExitCodeTwo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"bogus"},
                                             {"hosts", "--bogus"},
                                             {"migrate", "web3"},
                                             {"migrate", "--to", "beta"},
                                             {"plan", "--gain-min", "-1"},
                                             {"completion"},
                                             {"--url", "http://x", "--socket", "y", "hosts"}}) {
    const Output output = samepage(arguments);
    EXPECT_EQ(output.exit_code, 2) << ::testing::PrintToString(arguments);
    EXPECT_EQ(output.out, "");
    EXPECT_NE(output.err, "");
  }
}

TEST_F(SubcommandsTest, TheConfigurationFileIsReadAndItsTyposRefused) {
  answer("GET /hosts", kHosts);
  start();
  const std::string good = dir_.write("good.toml", "socket = \"" + socket_ + "\"\njson = true\n");
  const std::string bad = dir_.write("bad.toml", "sokcet = \"x\"\n");

  const Output read = testing::run(command({"--config", good, "hosts"}));
  const Output refused = testing::run(command({"--config", bad, "hosts"}));

  EXPECT_EQ(read.exit_code, 0) << read.err;
  EXPECT_EQ(read.out, std::string(kHosts) + "\n");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("sokcet"));
}

TEST_F(SubcommandsTest, OverTcpTheTokenComesFromItsFile) {
  answer("GET /hosts", kHosts);
  const std::string token = "0123456789abcdef";
  const auto server =
      http::HttpServer::create({.tcp_address = "127.0.0.1:0", .token = token}, routes_);
  ASSERT_TRUE(server) << server.error().message();
  const std::string url = "http://" + (*server)->address();
  const std::string file = dir_.write("token", token + "\n");

  const Output open =
      testing::run(command({"hosts", "--names", "--url", url, "--token-file", file}));
  const Output closed = testing::run(command({"hosts", "--url", url}));
  const Output absent =
      testing::run(command({"hosts", "--url", url, "--token-file", dir_.file("none")}));

  EXPECT_EQ(open.exit_code, 0) << open.err;
  EXPECT_EQ(open.out, "alpha\nbeta\n");
  EXPECT_EQ(closed.exit_code, 1);
  EXPECT_THAT(closed.err, HasSubstr("token"));
  EXPECT_EQ(absent.exit_code, 1);
}

/// What bash offers after `words`, the last of which is being typed.
class CompletionTest : public SubcommandsTest {
 protected:
  std::string offered(const std::string& words) {
    if (!server_) start();
    const std::string script = R"(source <("$0" completion bash); COMP_WORDS=("$0" )" + words +
                               R"(); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _samepage; )" +
                               R"(echo "${COMPREPLY[@]}")";
    const Output output =
        testing::run({"/bin/bash", "-c", script, SAMEPAGE_PROGRAM}, environment());
    EXPECT_EQ(output.err, "");
    return output.out;
  }
};

TEST_F(CompletionTest, OffersSubcommandsAndOptions) {
  EXPECT_EQ(offered("ho"), "hosts\n");
  EXPECT_EQ(offered("hosts en"), "enroll\n");
  EXPECT_EQ(offered("apply --d"), "--dry-run\n");
  EXPECT_EQ(offered("plan list --js"), "--json\n");
  EXPECT_EQ(offered("--socket " + socket_ + " sc"), "scan\n");
}

TEST_F(CompletionTest, AsksThePlacerForNames) {
  answer("GET /hosts", kHosts);
  answer("GET /vms", kVms);
  answer("GET /plans", R"({"plans":[)" + plan_json("p7", "proposed", "") + "]}");

  EXPECT_EQ(offered("migrate we"), "web3\n");
  EXPECT_EQ(offered("migrate web3 d"), "db1\n");
  EXPECT_EQ(offered("migrate web3 --to b"), "beta\n");
  EXPECT_EQ(offered("migrate --to ''"), "alpha beta\n");
  EXPECT_EQ(offered("migrate --to beta d"), "db1\n");
  EXPECT_EQ(offered("hosts forget al"), "alpha\n");
  EXPECT_EQ(offered("apply p"), "p7\n");
  EXPECT_EQ(offered("plan show p"), "p7\n");
}

TEST_F(CompletionTest, OffersFilesWhereFilesAreMeant) {
  dir_.write("token", "x");

  EXPECT_EQ(offered("--token-file " + dir_.file("tok")), dir_.file("token") + "\n");
}

}  // namespace
}  // namespace samepage::cli
