#include "tools/samepage-placer/steward.h"

#include <algorithm>
#include <set>
#include <utility>

#include "core/log.h"
#include "placer/explain.h"

namespace samepage::control {
namespace {

using placer::Mode;
using placer::PlanKind;

constexpr std::size_t kPlansRead = 50;

PlanKind kind_of(Mode mode) {
  switch (mode) {
    case Mode::kAutomatic:
      return PlanKind::kAutomatic;
    case Mode::kRecommend:
      return PlanKind::kRecommended;
    default:
      return PlanKind::kShadow;
  }
}

std::string moves_text(const placer::Plan& plan) {
  std::string text;
  for (const placer::PlannedMove& move : plan.moves) {
    text += move.vm.uuid + ">" + move.target + ";";
  }
  return text;
}

}  // namespace

Steward::Steward(const Edges& edges, std::unique_ptr<Ledger> ledger)
    : edges_(edges), ledger_(std::move(ledger)) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Result<std::unique_ptr<Steward>> Steward::create(const Edges& edges) {
  auto ledger = TRY(Ledger::open(edges.ledger_path, edges.clock));
  return std::unique_ptr<Steward>(new Steward(edges, std::move(ledger)));
}

Steward::~Steward() {
  thread_.request_stop();
  thread_.join();
}

void Steward::wake() {
  {
    const std::lock_guard lock(mutex_);
    wake_ = true;
  }
  woken_.notify_all();
}

void Steward::run(const std::stop_token& stop) {
  std::string last_trouble;
  while (!stop.stop_requested()) {
    const Result<placer::Policy> looked = look();
    const std::string trouble = looked ? std::string() : looked.error().message();
    if (!trouble.empty() && trouble != last_trouble) log_warning("no plan why=\"{}\"", trouble);
    last_trouble = trouble;
    const auto every = looked ? looked->every : placer::Policy().every;
    std::unique_lock lock(mutex_);
    woken_.wait_for(lock, stop, every, [this] { return wake_; });
    wake_ = false;
  }
}

Result<placer::Policy> Steward::look() {
  const placer::Policy policy = TRY(ledger_->policies().policy());
  const placer::Fleet fleet = edges_.fleet.fleet();
  TRY(learn_moves(fleet, policy));
  if (policy.mode == Mode::kManual || TRY(ledger_->journal().running())) return policy;
  placer::PlanOptions options = TRY(ledger_->plan_options());
  options.goal = policy.goal;
  options.resting = resting(fleet);
  placer::Plan plan = TRY(placer::plan(fleet, options));
  TRY(act(std::move(plan), policy));
  return policy;
}

// Moves of plans that ended, and VMs that are elsewhere without any plan's doing.
Result<void> Steward::learn_moves(const placer::Fleet& fleet, const placer::Policy& policy) {
  if (learned_.value == 0) {
    cooldowns_ = placer::Cooldowns({.first = policy.cooldown});
  }
  std::set<std::pair<std::string, std::string>> ours;  // VM and where a plan took it.
  auto ids = TRY(ledger_->journal().newest(kPlansRead));
  std::reverse(ids.begin(), ids.end());
  for (const placer::PlanId id : ids) {
    const placer::PlanRecord plan = TRY(ledger_->journal().plan(id));
    for (const placer::MoveRecord& record : plan.moves) {
      const bool never_began = record.state == placer::MoveState::kPlanned ||
                               record.state == placer::MoveState::kSkipped;
      if (never_began) continue;
      ours.emplace(record.move.vm.uuid, record.move.target);
      ours.emplace(record.move.vm.uuid, record.move.source);
      if (id <= learned_ || !plan.ended_at || record.state != placer::MoveState::kDone) continue;
      const auto ago = edges_.clock.today() - *plan.ended_at;
      cooldowns_.moved(record.move.vm.uuid,
                       edges_.clock.now() - std::chrono::duration_cast<Deadline::duration>(ago));
    }
    const bool over =
        plan.state != placer::PlanState::kProposed && plan.state != placer::PlanState::kRunning;
    if (over) learned_ = std::max(learned_, id);
  }
  for (const placer::Vm& vm : fleet.vms) {
    std::string& host = host_of_[vm.id.uuid];
    const bool elsewhere = !host.empty() && host != vm.host;
    if (elsewhere && !ours.contains({vm.id.uuid, vm.host})) {
      cooldowns_.moved(vm.id.uuid, edges_.clock.now());
      tell("vm_moved_by_others",
           vm.name + " is on " + vm.host + " now, and no plan moved it there from " + host, vm);
    }
    host = vm.host;
  }
  return {};
}

void Steward::tell(const std::string& kind, const std::string& text, const placer::Vm& vm) {
  log_info("{} vm={} host={}", kind, vm.name, vm.host);
  const auto added =
      ledger_->events().append({.kind = kind, .text = text, .vm = vm.name, .host = vm.host});
  if (!added) log_warning("event not kept why=\"{}\"", added.error().message());
  edges_.bell.ring();
}

std::map<std::string, std::string> Steward::resting(const placer::Fleet& fleet) const {
  std::map<std::string, std::string> resting;
  const auto now = edges_.clock.now();
  for (const placer::Vm& vm : fleet.vms) {
    const Deadline until = cooldowns_.until(vm.id.uuid);
    if (until <= now) continue;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - now);
    resting[vm.id.uuid] =
        vm.name + " was moved lately and rests for another " + placer::age_text(left);
  }
  return resting;
}

Result<void> Steward::act(placer::Plan plan, const placer::Policy& policy) {
  const std::string moves = moves_text(plan);
  const bool known = moves == last_moves_ && policy.mode != Mode::kAutomatic;
  if (known) return {};
  if (last_.value != 0) {
    const auto last = ledger_->journal().plan(last_);
    // What was proposed before is out of date.
    if (last && last->state == placer::PlanState::kProposed) {
      TRY(ledger_->journal().request_cancel(last_));
    }
    last_ = {};
  }
  last_moves_ = moves;
  if (plan.moves.empty()) return {};
  plan.kind = kind_of(policy.mode);
  last_ = TRY(ledger_->journal().propose(plan));
  log_info("plan made plan={} kind={} moves={} why=\"{}\"", last_.value, to_string(plan.kind),
           plan.moves.size(), plan.summary);
  TRY(ledger_->events().append({.kind = "plan_" + std::string(to_string(plan.kind)),
                                .text = "plan " + std::to_string(last_.value) + " (" +
                                        std::string(to_string(plan.kind)) + "): " + plan.summary,
                                .plan = last_}));
  edges_.bell.ring();
  if (policy.mode != Mode::kAutomatic) return {};
  return edges_.runner.begin(last_, *ledger_);
}

}  // namespace samepage::control
