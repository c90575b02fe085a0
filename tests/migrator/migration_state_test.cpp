// The promise under test: every phase of both state machines answers every event, by the tables
// below and in no other way. A pair that a table does not name is refused. "Never twice" in
// docs/design-notes.md is in them: after the release nothing leads to the source or to a discard.

#include <map>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "migrator/source_state.h"
#include "migrator/target_state.h"

namespace samepage::migrator {
namespace {

const Error kWhy(Errc::kIo, "why");
const Error kFirst(Errc::kTimedOut, "first");

std::string describe(const source::State& state) {
  std::string text(to_string(source::phase(state)));
  if (const auto* ended = std::get_if<source::Ended>(&state)) {
    text += ended->runs_on == Side::kSource   ? " source"
            : ended->runs_on == Side::kTarget ? " target"
                                              : " unknown";
    text += ended->error ? " error" : "";
  }
  return text;
}

const std::map<std::string, source::State> kSourceStates{
    {"connecting", source::Connecting{}},
    {"copying", source::Copying{}},
    {"stopping", source::Stopping{kFirst}},
    {"withdrawing", source::Withdrawing{kFirst}},
    {"pulling", source::Pulling{}},
    {"releasing", source::Releasing{}},
    {"ended", source::Ended{Side::kTarget, {}}},
};

const std::map<std::string, source::Event> kSourceEvents{
    {"connected", source::Connected{}},
    {"stop asked", source::StopAsked{kWhy}},
    {"target lost", source::TargetLost{kWhy}},
    {"target refused", source::TargetRefused{kWhy}},
    {"switched", source::SwitchedToPostcopy{}},
    {"finish handed", source::FinishHanded{}},
    {"migrated", source::MigrateReturned{}},
    {"migrate failed", source::MigrateReturned{kWhy}},
    {"owner source", source::OwnerFound{Owner::kSource}},
    {"owner let go", source::OwnerFound{Owner::kLetGo}},
    {"owner unclear", source::OwnerFound{Owner::kUnclear}},
    {"target resumed", source::TargetResumed{}},
    {"abandoned", source::Abandoned{}},
};

const std::map<std::pair<std::string, std::string>, std::string> kSourceTable{
    {{"connecting", "connected"}, "copying"},
    {{"connecting", "stop asked"}, "ended source error"},
    {{"connecting", "target lost"}, "ended source error"},
    {{"connecting", "target refused"}, "ended source error"},
    {{"connecting", "abandoned"}, "ended unknown error"},

    {{"copying", "stop asked"}, "stopping"},
    {{"copying", "target lost"}, "stopping"},
    {{"copying", "target refused"}, "stopping"},
    {{"copying", "switched"}, "pulling"},
    {{"copying", "finish handed"}, "releasing"},
    {{"copying", "migrated"}, "releasing"},
    {{"copying", "migrate failed"}, "withdrawing"},
    {{"copying", "abandoned"}, "ended unknown error"},

    {{"stopping", "stop asked"}, "stopping"},
    {{"stopping", "target lost"}, "stopping"},
    {{"stopping", "target refused"}, "stopping"},
    {{"stopping", "switched"}, "pulling"},
    {{"stopping", "finish handed"}, "releasing"},
    {{"stopping", "migrated"}, "releasing"},
    {{"stopping", "migrate failed"}, "withdrawing"},
    {{"stopping", "abandoned"}, "ended unknown error"},

    {{"withdrawing", "stop asked"}, "withdrawing"},
    {{"withdrawing", "target lost"}, "withdrawing"},
    {{"withdrawing", "target refused"}, "withdrawing"},
    {{"withdrawing", "switched"}, "ended unknown error"},
    {{"withdrawing", "finish handed"}, "releasing"},
    {{"withdrawing", "owner source"}, "ended source error"},
    {{"withdrawing", "owner let go"}, "releasing"},
    {{"withdrawing", "owner unclear"}, "ended unknown error"},
    {{"withdrawing", "abandoned"}, "ended unknown error"},

    {{"pulling", "stop asked"}, "pulling"},
    {{"pulling", "target lost"}, "pulling"},
    {{"pulling", "target refused"}, "pulling"},
    {{"pulling", "switched"}, "pulling"},
    {{"pulling", "finish handed"}, "releasing"},
    {{"pulling", "migrated"}, "releasing"},
    {{"pulling", "migrate failed"}, "ended unknown error"},
    {{"pulling", "abandoned"}, "ended unknown error"},

    {{"releasing", "stop asked"}, "releasing"},
    {{"releasing", "switched"}, "releasing"},
    {{"releasing", "target lost"}, "ended unknown error"},
    {{"releasing", "target refused"}, "ended unknown error"},
    {{"releasing", "finish handed"}, "releasing"},
    {{"releasing", "migrated"}, "releasing"},
    {{"releasing", "migrate failed"}, "releasing"},
    {{"releasing", "owner source"}, "releasing"},
    {{"releasing", "owner let go"}, "releasing"},
    {{"releasing", "owner unclear"}, "releasing"},
    {{"releasing", "target resumed"}, "ended target"},
    {{"releasing", "abandoned"}, "ended unknown error"},
};

TEST(SourceStateTest, EveryPhaseAnswersEveryEventByTheTable) {
  for (const auto& [phase, state] : kSourceStates) {
    for (const auto& [name, event] : kSourceEvents) {
      const auto next = source::step(state, event);
      const auto expected = kSourceTable.find({phase, name});
      if (phase == "ended") {
        ASSERT_TRUE(next) << name;
        EXPECT_EQ(describe(*next), "ended target") << name;
      } else if (expected == kSourceTable.end()) {
        ASSERT_FALSE(next) << phase << ", " << name;
        EXPECT_EQ(next.error().code(), Errc::kInvalid) << phase << ", " << name;
      } else {
        ASSERT_TRUE(next) << phase << ", " << name;
        EXPECT_EQ(describe(*next), expected->second) << phase << ", " << name;
      }
    }
  }
}

TEST(SourceStateTest, TheFirstReasonIsKept) {
  const auto stopping = source::step(source::Stopping{kFirst}, source::TargetLost{kWhy});
  EXPECT_EQ(std::get<source::Stopping>(*stopping).why.message(), "first");
  const auto withdrawing = source::step(*stopping, source::MigrateReturned{kWhy});
  const Error& why = std::get<source::Withdrawing>(*withdrawing).why;
  EXPECT_EQ(why.code(), Errc::kTimedOut);
  EXPECT_EQ(why.message(), "first; libvirt: why");
}

std::string describe(const target::State& state) {
  std::string text(to_string(target::phase(state)));
  if (const auto* receiving = std::get_if<target::Receiving>(&state)) {
    text += receiving->delivered ? " all" : "";
  }
  if (const auto* released = std::get_if<target::Released>(&state)) {
    text += released->resume ? "" : " paused";
  }
  if (const auto* resuming = std::get_if<target::Resuming>(&state)) {
    text += resuming->resume ? "" : " paused";
  }
  if (const auto* ended = std::get_if<target::Ended>(&state)) {
    const std::map<Copy, std::string> names{{Copy::kNone, " none"},
                                            {Copy::kRunning, " running"},
                                            {Copy::kPausedByOwner, " paused"},
                                            {Copy::kInDoubt, " in doubt"}};
    text += names.at(ended->copy);
    text += ended->error ? " error" : "";
  }
  return text;
}

const std::map<std::string, target::State> kTargetStates{
    {"waiting", target::Waiting{}},
    {"receiving", target::Receiving{}},
    {"receiving all", target::Receiving{true}},
    {"released", target::Released{true}},
    {"released paused", target::Released{false}},
    {"resuming", target::Resuming{true}},
    {"resuming paused", target::Resuming{false}},
    {"discarding", target::Discarding{}},
    {"ended", target::Ended{Copy::kRunning, {}}},
};

const std::map<std::string, target::Event> kTargetEvents{
    {"connected", target::SourceConnected{}},
    {"delivered", target::StreamDelivered{}},
    {"relay failed", target::RelayFailed{kWhy}},
    {"release", target::ReleaseAsked{true}},
    {"release paused", target::ReleaseAsked{false}},
    {"abort", target::AbortAsked{kWhy}},
    {"source lost", target::SourceLost{kWhy}},
    {"timed out", target::TimedOut{kWhy}},
    {"settle resume", target::Settled{Verdict::kResume}},
    {"settle discard", target::Settled{Verdict::kDiscard}},
    {"done", target::Done{}},
    {"failed", target::Done{kWhy}},
    {"abandoned", target::Abandoned{}},
    {"superseded", target::Superseded{}},
};

const std::map<std::pair<std::string, std::string>, std::string> kTargetTable{
    {{"waiting", "connected"}, "receiving"},
    {{"waiting", "source lost"}, "ended none error"},
    {{"waiting", "timed out"}, "ended none error"},
    {{"waiting", "settle resume"}, "resuming"},
    {{"waiting", "settle discard"}, "discarding"},
    {{"waiting", "abandoned"}, "ended in doubt error"},
    {{"waiting", "superseded"}, "ended none error"},

    {{"receiving", "delivered"}, "receiving all"},
    {{"receiving", "relay failed"}, "receiving"},
    {{"receiving", "release"}, "released"},
    {{"receiving", "release paused"}, "released paused"},
    {{"receiving", "abort"}, "discarding"},
    {{"receiving", "source lost"}, "ended in doubt error"},
    {{"receiving", "timed out"}, "ended in doubt error"},
    {{"receiving", "settle resume"}, "resuming"},
    {{"receiving", "settle discard"}, "discarding"},
    {{"receiving", "abandoned"}, "ended in doubt error"},

    {{"receiving all", "delivered"}, "receiving all"},
    {{"receiving all", "relay failed"}, "receiving all"},
    {{"receiving all", "release"}, "resuming"},
    {{"receiving all", "release paused"}, "resuming paused"},
    {{"receiving all", "abort"}, "discarding"},
    {{"receiving all", "source lost"}, "ended in doubt error"},
    {{"receiving all", "timed out"}, "ended in doubt error"},
    {{"receiving all", "settle resume"}, "resuming"},
    {{"receiving all", "settle discard"}, "discarding"},
    {{"receiving all", "abandoned"}, "ended in doubt error"},

    {{"released", "delivered"}, "resuming"},
    {{"released", "relay failed"}, "ended in doubt error"},
    {{"released", "source lost"}, "released"},
    {{"released", "timed out"}, "ended in doubt error"},
    {{"released", "settle resume"}, "resuming"},
    {{"released", "abandoned"}, "ended in doubt error"},

    {{"released paused", "delivered"}, "resuming paused"},
    {{"released paused", "relay failed"}, "ended in doubt error"},
    {{"released paused", "source lost"}, "released paused"},
    {{"released paused", "timed out"}, "ended in doubt error"},
    {{"released paused", "settle resume"}, "resuming"},
    {{"released paused", "abandoned"}, "ended in doubt error"},

    {{"resuming", "delivered"}, "resuming"},
    {{"resuming", "relay failed"}, "resuming"},
    {{"resuming", "source lost"}, "resuming"},
    {{"resuming", "timed out"}, "resuming"},
    {{"resuming", "done"}, "ended running"},
    {{"resuming", "failed"}, "ended in doubt error"},
    {{"resuming", "abandoned"}, "ended in doubt error"},

    {{"resuming paused", "delivered"}, "resuming paused"},
    {{"resuming paused", "relay failed"}, "resuming paused"},
    {{"resuming paused", "source lost"}, "resuming paused"},
    {{"resuming paused", "timed out"}, "resuming paused"},
    {{"resuming paused", "done"}, "ended paused"},
    {{"resuming paused", "failed"}, "ended in doubt error"},
    {{"resuming paused", "abandoned"}, "ended in doubt error"},

    {{"discarding", "delivered"}, "discarding"},
    {{"discarding", "relay failed"}, "discarding"},
    {{"discarding", "source lost"}, "discarding"},
    {{"discarding", "timed out"}, "discarding"},
    {{"discarding", "done"}, "ended none error"},
    {{"discarding", "failed"}, "ended in doubt error"},
    {{"discarding", "abandoned"}, "ended in doubt error"},
};

TEST(TargetStateTest, EveryPhaseAnswersEveryEventByTheTable) {
  for (const auto& [phase, state] : kTargetStates) {
    for (const auto& [name, event] : kTargetEvents) {
      const auto next = target::step(state, event);
      const auto expected = kTargetTable.find({phase, name});
      if (phase == "ended") {
        ASSERT_TRUE(next) << name;
        EXPECT_EQ(describe(*next), "ended running") << name;
      } else if (expected == kTargetTable.end()) {
        ASSERT_FALSE(next) << phase << ", " << name;
        EXPECT_EQ(next.error().code(), Errc::kInvalid) << phase << ", " << name;
      } else {
        ASSERT_TRUE(next) << phase << ", " << name;
        EXPECT_EQ(describe(*next), expected->second) << phase << ", " << name;
      }
    }
  }
}

}  // namespace
}  // namespace samepage::migrator
