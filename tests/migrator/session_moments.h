#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/migrator/session_harness.h"

namespace samepage::migrator {

/// When a fault strikes in a session.
struct At {
  Moment moment;
  bool on_source;  ///< Whose fake reaches it.
  std::string name;
};

inline const std::vector<At> kMoments{
    {Moment::kPrepared, true, "Prepared"},
    {Moment::kHalfStreamed, true, "HalfStreamed"},
    {Moment::kGuestStopped, true, "GuestStopped"},
    {Moment::kPerformed, true, "Performed"},
    {Moment::kFinishExecuted, false, "FinishExecuted"},
    {Moment::kFinishAnswered, true, "FinishAnswered"},
};

/// What strikes then.
struct Fault {
  std::function<void(SessionHarness&)> strike;
  std::string name;
};

}  // namespace samepage::migrator
