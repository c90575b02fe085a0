#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/tools/child_process.h"
#include "tests/tools/temp_dir.h"
#include "tools/samepage-placer/http_server.h"

namespace samepage::cli {

using samepage::testing::ChildProcess;
using samepage::testing::TempDir;
using Output = ChildProcess::Output;

inline constexpr const char* kHosts =
    R"({"hosts":[{"name":"alpha","state":"up","public_key":"k1","vms":2,"memory_mib":7951.5,)"
    R"("resident_mib":812,"distinct_mib":600,"ksm_shared_mib":212,"predicted_shared_mib":230,)"
    R"("report_age_s":4,"hypervisor_version":"QEMU 7.2.22"},)"
    R"({"name":"beta","state":"never_seen","memory_mib":null}]})";
inline constexpr const char* kVms =
    R"({"vms":[{"name":"web3","uuid":"u3","host":"alpha","state":"running","memory_mib":256,)"
    R"("present_mib":190.4,"zero_mib":3.25,"duplicate_mib":1,"unique_mib":186,)"
    R"("own_mib":44.5,"template_mib":133,"ksm_mib":21,)"
    R"("sharing_domain":"default","fingerprint_age_s":61,)"
    R"("shares_most_with":{"vm":"web1","mib":150.2}},)"
    R"({"name":"db1","uuid":"u4","host":"beta","state":"paused","shares_most_with":null}]})";

inline std::string move_json(const std::string& vm, const std::string& state,
                             const std::string& error) {
  return R"({"index":0,"vm":")" + vm + R"(","uuid":"u3","source":"alpha","target":"beta",)" +
         R"("reason":"shares 150 MiB with web1 on beta","gain_mib":150.2,"state":")" + state +
         R"(","error":)" + (error.empty() ? "null" : "\"" + error + "\"") +
         (state == "planned"
              ? ""
              : R"(,"stream_bytes":211812352,"wire_bytes":11534336,"page_refs":48000,"template_pages":1024,)"
                R"("downtime_ms":213,"total_ms":1840)") +
         "}";
}

inline std::string plan_json(const std::string& id, const std::string& state,
                             const std::string& moves) {
  return R"({"id":")" + id + R"(","state":")" + state +
         R"(","created_at":"2026-01-02T03:04:05Z","predicted_shared_before_mib":80,)" +
         R"("predicted_shared_after_mib":230.2,"gain_mib":150.2,"summary":"web3 joins web1",)" +
         R"("achieved_shared":)" +
         (state == "done" ? R"({"before_mib":71,"after_mib":204})" : "null") + R"(,"moves":[)" +
         moves + R"(],"stays":[{"vm":"db1","host":"beta","reason":"paused"}]})";
}

/// Runs the real program against a placer that answers what the test scripted.
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

}  // namespace samepage::cli
