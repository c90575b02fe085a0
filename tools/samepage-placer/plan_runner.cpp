#include "tools/samepage-placer/plan_runner.h"

#include <utility>

#include "core/log.h"

namespace samepage::control {
namespace {

/// Between two attempts to go on with a plan whose hosts cannot be asked.
constexpr auto kRetryInterval = std::chrono::seconds(1);

}  // namespace

void EventBell::ring() {
  {
    const std::lock_guard lock(mutex_);
    ++count_;
  }
  rung_.notify_all();
}

std::uint64_t EventBell::wait(std::uint64_t heard, Deadline deadline) {
  std::unique_lock lock(mutex_);
  rung_.wait_until(lock, deadline, [&] { return count_ > heard; });
  return count_;
}

PlanRunner::PlanRunner(const Edges& edges, std::unique_ptr<Ledger> ledger)
    : edges_(edges), ledger_(std::move(ledger)) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Result<std::unique_ptr<PlanRunner>> PlanRunner::create(const Edges& edges) {
  auto ledger = TRY(Ledger::open(edges.ledger_path, edges.clock));
  return std::unique_ptr<PlanRunner>(new PlanRunner(edges, std::move(ledger)));
}

PlanRunner::~PlanRunner() {
  thread_.request_stop();
  thread_.join();
}

Result<void> PlanRunner::begin(placer::PlanId id, Ledger& ledger) {
  const std::uint64_t before = achieved_pages();
  TRY(executor(ledger).begin(id, edges_.fleet.fleet()));
  {
    const std::lock_guard lock(mutex_);
    last_ = id;
    shared_before_ = before;
    wake_ = true;
  }
  begun_.notify_all();
  return {};
}

Result<void> PlanRunner::note_sharing(Ledger& ledger) {
  placer::AchievedSharing achieved;
  placer::PlanId id;
  {
    const std::lock_guard lock(mutex_);
    id = last_;
    achieved.before_pages = shared_before_;
  }
  if (id.value == 0) return {};
  const auto plan = TRY(ledger.journal().plan(id));
  if (plan.state == placer::PlanState::kRunning) return {};
  achieved.after_pages = achieved_pages();
  return ledger.journal().record_achieved(id, achieved);
}

placer::Executor PlanRunner::executor(Ledger& ledger) {
  placer::Executor::Options options;
  // Limits that cannot be read are the tightest.
  if (const auto policy = ledger.policies().policy()) options.limits = policy->limits;
  options.on_event = [this](const placer::Event&) { edges_.bell.ring(); };
  return {std::move(options), ledger.journal(), ledger.events(), edges_.carrier, edges_.clock};
}

bool PlanRunner::wait_for_work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  begun_.wait(lock, stop, [this] { return wake_; });
  wake_ = false;
  return !stop.stop_requested();
}

void PlanRunner::run(const std::stop_token& stop) {
  while (wait_for_work(stop)) {
    const auto running = ledger_->journal().running();
    if (!running) {
      log_error("journal unreadable why=\"{}\"", running.error().message());
    } else if (*running) {
      carry_out(**running, stop);
    }
  }
}

void PlanRunner::carry_out(placer::PlanId id, const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    auto carrying = executor(*ledger_);
    const auto ended = carrying.carry_out(id, stop);
    edges_.bell.ring();
    if (ended) {
      log_info("plan ended plan={} state={}", id.value, to_string(*ended));
      return;
    }
    if (stop.stop_requested()) return;
    log_warning("plan waits plan={} why=\"{}\"", id.value, ended.error().message());
    placer::rest_on_the_clock(edges_.clock.now() + kRetryInterval, stop);
  }
}

std::uint64_t PlanRunner::achieved_pages() const {
  std::uint64_t pages = 0;
  for (const placer::Host& host : edges_.fleet.fleet().hosts) {
    if (host.memory) pages += host.memory->achieved_shared_pages();
  }
  return pages;
}

}  // namespace samepage::control
