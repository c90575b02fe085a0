#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "placer/carrier.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::fakes {

/// How a migration ends, once it was started.
enum class Fate : std::uint8_t {
  kArrives,
  kFails,               ///< The link breaks; the guest goes on at the source.
  kLeavesCopy,          ///< As kFails, but a paused copy stays on the target.
  kArrivesPaused,       ///< The source let go of it; nobody resumed it on the target.
  kLeavesSourcePaused,  ///< The target's copy is gone; libvirt left the source's paused.
  kPausedOnBoth,        ///< For a while: then the source's libvirt ends its own copy.
  kArrivesBesideCopy,   ///< It runs on the target; a paused copy is left on the source.
};

/// A fleet of hosts that migrate, and their agents, in one process and on a fake clock. Hosts can
/// be cut off, answers can be lost, and agents can forget. It watches over its VMs: `violations`
/// says when a copy was resumed beside another, the last copy was discarded, or one VM ran twice.
/// Threads: one.
class FakeCarrier final : public placer::Carrier {
 public:
  using Presence = placer::Presence;

  explicit FakeCarrier(FakeClock& clock) : clock_(clock) {}

  // The world, as tests arrange it and look at it.
  std::map<std::string, std::map<VmId, Presence>> hosts;
  std::deque<Fate> fates;                         ///< Of the migrations to come; else kArrives.
  std::map<std::string, Deadline> cut_off_until;  ///< Hosts that cannot be asked.
  std::set<std::string> forgetful;                ///< Hosts that forget how sessions ended.
  std::set<std::string> refuse;                   ///< Names of calls that are refused.
  std::set<std::string> lose_answer;              ///< Names of calls done but not answered, once.
  std::function<void(std::string_view call)> before;  ///< May throw: the placer dies.
  std::function<void(std::string_view call)> after;
  std::chrono::seconds migration_time{10};
  std::vector<std::string> calls;
  std::vector<std::string> violations;

  Presence at(const std::string& host, const VmId& vm) {
    settle_time();
    const auto found = hosts[host].find(vm);
    return found == hosts[host].end() ? Presence::kAbsent : found->second;
  }

  bool is_busy() {
    settle_time();
    for (const auto& [id, session] : sessions_) {
      if (session.state == State::kGoesOn) return true;
    }
    return false;
  }

  Result<void> prepare(const placer::MoveOrder& order, Deadline) override {
    return call("prepare", order.target, [&]() -> Result<void> {
      if (at(order.target, order.vm) != Presence::kAbsent) {
        return fail(Errc::kInvalid, "the VM is here already");
      }
      sessions_[order.session].order = order;
      return {};
    });
  }

  Result<void> start(const placer::MoveOrder& order, Deadline) override {
    return call("start", order.source, [&]() -> Result<void> {
      if (at(order.source, order.vm) != Presence::kRunning) {
        return fail(Errc::kInvalid, "the VM does not run here");
      }
      const auto prepared = sessions_.find(order.session);
      if (prepared == sessions_.end()) return fail(Errc::kIo, "the target refused the session");
      Session& session = prepared->second;
      session.state = State::kGoesOn;
      session.ends_at = clock_.now() + migration_time;
      if (!fates.empty()) {
        session.fate = fates.front();
        fates.pop_front();
      }
      hosts[order.target][order.vm] = Presence::kPaused;
      return {};
    });
  }

  Result<placer::MoveOutcome> wait(const placer::MoveOrder& order,
                                   const std::function<void(const placer::MoveProgress&)>& progress,
                                   std::stop_token stop, Deadline deadline) override {
    return call("wait", order.source, [&]() -> Result<placer::MoveOutcome> {
      const auto found = sessions_.find(order.session);
      if (found == sessions_.end() || found->second.state == State::kPrepared) {
        return fail(Errc::kNotFound, "no such session");
      }
      const Session& session = found->second;
      while (session.state == State::kGoesOn) {
        if (stop.stop_requested() || clock_.now() >= deadline) {
          return fail(Errc::kTimedOut, "the migration goes on");
        }
        progress({.phase = "ram", .stream_bytes = 1, .wire_bytes = 1});
        clock_.advance(std::chrono::seconds(1));
        if (is_cut_off(order.source)) return fail(Errc::kUnavailable, "the source was lost");
        settle_time();
      }
      return session.outcome;
    });
  }

  Result<void> cancel(const placer::MoveOrder& order, Deadline) override {
    return call("cancel", order.source, [&]() -> Result<void> {
      Session& session = sessions_[order.session];
      session.fate = Fate::kFails;
      session.ends_at = clock_.now() + std::chrono::seconds(1);
      return {};
    });
  }

  Result<placer::SessionStatus> query(const placer::MoveOrder& order, Deadline) override {
    return call("query", order.source, [&]() -> Result<placer::SessionStatus> {
      using Kind = placer::SessionStatus::Kind;
      const auto found = sessions_.find(order.session);
      if (found == sessions_.end()) return placer::SessionStatus{};
      if (found->second.state == State::kGoesOn) return placer::SessionStatus{Kind::kGoesOn, {}};
      const bool forgot =
          found->second.state == State::kPrepared || forgetful.contains(order.source);
      if (forgot) return placer::SessionStatus{};
      return placer::SessionStatus{Kind::kEnded, found->second.outcome};
    });
  }

  Result<Presence> locate(const std::string& host, const VmId& vm, Deadline) override {
    return call("locate", host, [&]() -> Result<Presence> { return at(host, vm); });
  }

  Result<void> settle(const std::string& host, const VmId& vm, placer::Verdict verdict,
                      Deadline) override {
    return call("settle", host, [&]() -> Result<void> {
      if (at(host, vm) != Presence::kPaused) return fail(Errc::kInvalid, "the VM is not paused");
      const int others = copies(vm) - 1;
      if (verdict == placer::Verdict::kResume) {
        if (others > 0) violations.push_back(vm.uuid + " was resumed beside another copy");
        hosts[host][vm] = Presence::kRunning;
      } else {
        if (running(vm) == 0) violations.push_back(vm.uuid + " was discarded, none runs");
        hosts[host].erase(vm);
      }
      watch();
      return {};
    });
  }

 private:
  enum class State : std::uint8_t { kPrepared, kGoesOn, kEnded };

  struct Session {
    placer::MoveOrder order;
    State state = State::kPrepared;
    Fate fate = Fate::kArrives;
    Deadline ends_at{};
    placer::MoveOutcome outcome;
  };

  template <class Act>
  auto call(const std::string& name, const std::string& host, Act act) -> decltype(act()) {
    calls.push_back(name + " " + host);
    if (before) before(name);
    settle_time();
    if (is_cut_off(host)) return fail(Errc::kUnavailable, host + " is not connected");
    if (refuse.contains(name)) return fail(Errc::kIo, name + " was refused");
    auto result = act();
    settle_time();
    if (after) after(name);
    if (lose_answer.erase(name) > 0) return fail(Errc::kTimedOut, host + " did not answer");
    return result;
  }

  bool is_cut_off(const std::string& host) const {
    const auto found = cut_off_until.find(host);
    return found != cut_off_until.end() && clock_.now() < found->second;
  }

  int copies(const VmId& vm) const {
    int count = 0;
    for (const auto& [host, vms] : hosts) count += vms.contains(vm) ? 1 : 0;
    return count;
  }

  int running(const VmId& vm) const {
    int count = 0;
    for (const auto& [host, vms] : hosts) {
      const auto found = vms.find(vm);
      count += found != vms.end() && found->second == Presence::kRunning ? 1 : 0;
    }
    return count;
  }

  void watch() {
    for (const auto& [id, session] : sessions_) {
      const VmId& vm = session.order.vm;
      if (running(vm) > 1) violations.push_back(vm.uuid + " runs twice");
      if (copies(vm) == 0) violations.push_back(vm.uuid + " is lost");
    }
  }

  void settle_time() {
    for (auto& [id, session] : sessions_) {
      if (session.state == State::kGoesOn && clock_.now() >= session.ends_at) end(session);
    }
    std::erase_if(later_, [&](const auto& change) {
      if (clock_.now() < change.first) return false;
      change.second();
      return true;
    });
    watch();
  }

  void end(Session& session) {
    auto& source = hosts[session.order.source];
    auto& target = hosts[session.order.target];
    const VmId vm = session.order.vm;
    session.state = State::kEnded;
    session.outcome = {.runs_on = placer::Side::kUnknown, .error = "the link broke", .figures = {}};
    session.outcome.figures.wire_bytes = 1000;
    switch (session.fate) {
      case Fate::kArrives:
        source.erase(vm);
        target[vm] = Presence::kRunning;
        session.outcome.runs_on = placer::Side::kTarget;
        session.outcome.error.clear();
        break;
      case Fate::kFails:
        target.erase(vm);
        session.outcome.runs_on = placer::Side::kSource;
        break;
      case Fate::kLeavesCopy:
        session.outcome.runs_on = placer::Side::kSource;
        break;
      case Fate::kArrivesPaused:
        source.erase(vm);
        break;
      case Fate::kLeavesSourcePaused:
        target.erase(vm);
        source[vm] = Presence::kPaused;
        break;
      case Fate::kPausedOnBoth:
        source[vm] = Presence::kPaused;
        later_.emplace_back(clock_.now() + std::chrono::seconds(30),
                            [&source, vm] { source.erase(vm); });
        break;
      case Fate::kArrivesBesideCopy:
        source[vm] = Presence::kPaused;
        target[vm] = Presence::kRunning;
        break;
    }
  }

  FakeClock& clock_;
  std::map<std::string, Session> sessions_;
  std::vector<std::pair<Deadline, std::function<void()>>> later_;
};

}  // namespace samepage::fakes
