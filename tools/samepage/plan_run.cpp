#include "tools/samepage/plan_run.h"

#include <chrono>
#include <thread>

#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/quantity.h"

namespace samepage::cli {
namespace {

/// For how long a placer may be away while its plan runs: it comes back after an upgrade.
constexpr std::chrono::seconds kPlacerAwayMax{60};
constexpr std::chrono::seconds kRetryPause{1};

class PlanRun {
 public:
  PlanRun(std::string id, Stop on_interrupt, Session& session)
      : id_(std::move(id)),
        on_interrupt_(on_interrupt),
        session_(session),
        bar_(session.talk, session.talk_width) {}

  Result<StoredPlan> follow() {
    Deadline patience = Deadline::clock::now() + kPlacerAwayMax;
    for (;;) {
      const Result<void> watched = watch();
      TRY(obey_interrupts());
      Result<StoredPlan> plan = state();
      const bool away = !plan && plan.error().code() == Errc::kUnavailable;
      if (plan && plan->plan.state != "running") return plan;
      if (!plan && !away) return plan;
      if (watched && !away) patience = Deadline::clock::now() + kPlacerAwayMax;
      if (Deadline::clock::now() > patience) {
        return fail(Errc::kUnavailable, plan ? watched.error().message() : plan.error().message());
      }
      if (!watched || away) pause();
    }
  }

 private:
  /// Until the plan ended, the placer went away, or Ctrl-C.
  Result<void> watch() {
    const std::string path =
        "/events?follow=1&plan=" + http::url_encoded(id_) + "&since=" + std::to_string(since_);
    const int obeyed = interrupts_obeyed_;
    TRY(session_.placer.stream(
        path, [this](std::string_view line) { show(line); },
        [&] { return interrupts_.count() == obeyed; }, Deadline::max()));
    bar_.clear();
    return {};
  }

  void show(std::string_view line) {
    const Result<Event> event = parse_event(line);
    if (!event) return bar_.say(event.error().message());
    since_ = std::max(since_, event->id);
    if (!event->progress) return bar_.say(event->text);
    const Progress& progress = *event->progress;
    const double read = progress.stream_bytes.value_or(0);
    const double whole = read + progress.bytes_remaining.value_or(0);
    const std::string disks = progress.disk_bytes.value_or(0) > 0
                                  ? show_bytes_as_mib(progress.disk_bytes) + " of disks, "
                                  : std::string();
    bar_.show(event->vm, whole > 0 ? read / whole : 0,
              progress.phase + ", " + disks + show_bytes_as_mib(progress.stream_bytes) + " read, " +
                  show_bytes_as_mib(progress.wire_bytes) + " sent, " +
                  show_count(progress.page_refs) + " refs");
  }

  Result<void> obey_interrupts() {
    const int count = interrupts_.count();
    if (count == interrupts_obeyed_) return {};
    const bool first = interrupts_obeyed_ == 0;
    interrupts_obeyed_ = count;
    if (!first || count > 1) {
      return fail(Errc::kUnavailable, "left plan " + id_ + " to the placer; `samepage plan show " +
                                          id_ + "` tells how it ends");
    }
    bar_.say(on_interrupt_ == Stop::kAtOnce
                 ? "giving the running move up; Ctrl-C again leaves at once"
                 : "stopping after the running move; Ctrl-C again leaves at once");
    const Result<void> asked = stop_plan(id_, on_interrupt_, session_);
    if (!asked) bar_.say("could not stop the plan: " + asked.error().message());
    return {};
  }

  Result<StoredPlan> state() {
    const std::string body =
        TRY(session_.placer.get("/plans/" + http::url_encoded(id_), answer_deadline()));
    return parse_plan(body);
  }

  void pause() const {
    // Sleeps shorter than asked when Ctrl-C comes, which is what we want.
    const auto pause = std::chrono::duration_cast<std::chrono::nanoseconds>(kRetryPause);
    const timespec duration{.tv_sec = 0, .tv_nsec = pause.count() - 1};
    ::nanosleep(&duration, nullptr);
  }

  std::string id_;
  Stop on_interrupt_;
  Session& session_;
  Interrupts interrupts_;
  ProgressBar bar_;
  std::uint64_t since_ = 0;
  int interrupts_obeyed_ = 0;
};

}  // namespace

Result<void> stop_plan(const std::string& id, Stop stop, Session& session) {
  const std::string body = stop == Stop::kAtOnce ? R"({"at_once":true})" : "";
  TRY(session.placer.send("POST", "/plans/" + http::url_encoded(id) + "/cancel", body,
                          answer_deadline()));
  return {};
}

Result<StoredPlan> follow_plan(const std::string& id, Stop on_interrupt, Session& session) {
  return PlanRun(id, on_interrupt, session).follow();
}

}  // namespace samepage::cli
