#include "tools/samepage-placer/bus_carrier.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/page.h"
#include "core/random_bytes.h"

namespace samepage::control {
namespace {

using placer::MoveOrder;
using placer::MoveOutcome;
using placer::MoveProgress;
using placer::Presence;
using placer::SessionStatus;

constexpr std::size_t kSecretBytes = 32;

/// How long a lost notice may go unnoticed.
constexpr auto kAskInterval = std::chrono::milliseconds(1'000);
constexpr auto kAnswerMax = std::chrono::seconds(10);

Result<std::string> new_secret() {
  std::string secret(kSecretBytes, '\0');
  TRY(fill_random(std::as_writable_bytes(std::span(secret))));
  return secret;
}

placer::Side side(bus::MigrationOutcome::Side side) {
  switch (side) {
    case bus::MigrationOutcome::SOURCE:
      return placer::Side::kSource;
    case bus::MigrationOutcome::TARGET:
      return placer::Side::kTarget;
    default:
      return placer::Side::kUnknown;
  }
}

MoveOutcome read_outcome(const bus::MigrationOutcome& message) {
  return {.runs_on = side(message.runs_on()),
          .error = message.failure().message(),
          .figures = {.stream_bytes = message.stream_bytes(),
                      .wire_bytes = message.wire_bytes(),
                      .page_refs = message.page_refs(),
                      .page_literals = message.page_literals(),
                      .zero_pages = message.zero_pages(),
                      .pages_resent = message.pages_resent(),
                      .downtime_us = message.downtime_us(),
                      .total_us = message.total_us(),
                      .template_pages = message.template_pages(),
                      .disk_bytes = message.disk_bytes()}};
}

Presence presence(VmState state) {
  switch (state) {
    case VmState::kRunning:
      return Presence::kRunning;
    case VmState::kPaused:
      return Presence::kPaused;
    case VmState::kOther:
      break;
  }
  return Presence::kOther;
}

}  // namespace

Result<void> BusCarrier::prepare(const MoveOrder& order, Deadline deadline) {
  const std::string secret = TRY(new_secret());
  bus::Envelope envelope;
  bus::PrepareTarget& request = *envelope.mutable_prepare_target();
  request.set_session(order.session);
  request.set_secret(secret);
  request.set_vm_uuid(order.vm.uuid);
  request.set_vm_name(order.name);
  request.set_sharing_domain(order.sharing_domain);
  request.set_time_max_s(static_cast<std::uint64_t>(order.mode.time_max.count()));
  if (order.mode.streams == 0 && !order.mode.postcopy) put_template(order.vm, request);
  const auto reply = TRY(bus_.request(order.target, std::move(envelope), deadline));

  const MutexLock lock(mutex_);
  add({.id = order.session,
       .secret = secret,
       .address = reply.target_ready().address(),
       .port = reply.target_ready().port(),
       .progress = {},
       .outcome = {}});
  return {};
}

void BusCarrier::put_template(const VmId& id, bus::PrepareTarget& request) const {
  const placer::Fleet fleet = fleet_.fleet();
  const placer::Vm* const vm = fleet.find_vm(id);
  if (vm == nullptr) return;
  request.set_template_id(vm->template_id);
  request.set_memory_bytes(vm->memory_pages * kPageSize);
}

BusCarrier::Session* BusCarrier::find(const std::string& id) {
  const auto found = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const Session& session) { return session.id == id; });
  return found == sessions_.end() ? nullptr : &*found;
}

// The oldest are of migrations that failed before anybody waited for them.
BusCarrier::Session& BusCarrier::add(Session session) {
  if (sessions_.size() >= kSessionsMax) sessions_.pop_front();
  return sessions_.emplace_back(std::move(session));
}

void BusCarrier::forget(const std::string& id) {
  const MutexLock lock(mutex_);
  sessions_.remove_if([&](const Session& session) { return session.id == id; });
}

Result<void> BusCarrier::start(const MoveOrder& order, Deadline deadline) {
  bus::Envelope envelope;
  bus::StartMigration& request = *envelope.mutable_start_migration();
  {
    const MutexLock lock(mutex_);
    const Session* const session = find(order.session);
    if (session == nullptr) {
      return fail(Errc::kInvalid, "no target was prepared for this migration");
    }
    request.set_secret(session->secret);
    request.set_target_address(session->address);
    request.set_target_port(session->port);
  }
  request.set_session(order.session);
  request.set_vm_uuid(order.vm.uuid);
  request.set_sharing_domain(order.sharing_domain);
  request.set_streams(order.mode.streams);
  request.set_postcopy(order.mode.postcopy);
  request.set_time_max_s(static_cast<std::uint64_t>(order.mode.time_max.count()));
  TRY(bus_.request(order.source, std::move(envelope), deadline));
  return {};
}

Result<MoveOutcome> BusCarrier::wait(const MoveOrder& order,
                                     const std::function<void(const MoveProgress&)>& on_progress,
                                     std::stop_token stop, Deadline deadline) {
  while (true) {
    const auto now = Deadline::clock::now();
    if (stop.stop_requested() || now >= deadline) {
      return fail(Errc::kTimedOut, "the migration goes on still");
    }
    const News news = await_news(order.session, std::min(deadline, now + kAskInterval));
    if (news.outcome) {
      forget(order.session);
      return *news.outcome;
    }
    if (news.progress) {
      on_progress(*news.progress);
      continue;
    }
    const auto status = TRY(query(order, std::min(deadline, now + kAskInterval + kAnswerMax)));
    if (status.kind == SessionStatus::Kind::kEnded) {
      forget(order.session);
      return status.outcome;
    }
    if (status.kind == SessionStatus::Kind::kNotKnown) {
      return fail(Errc::kUnavailable, "the agent of " + order.source +
                                          " was started anew and knows nothing of the migration");
    }
  }
}

BusCarrier::News BusCarrier::await_news(const std::string& id, Deadline deadline) {
  const MutexLock lock(mutex_);
  for (;;) {
    // After a restart of the placer nobody has prepared it here.
    Session fresh;
    fresh.id = id;
    Session* const known = find(id);
    Session& session = known != nullptr ? *known : add(fresh);
    const bool is_over = Deadline::clock::now() >= deadline;
    if (session.progress || session.outcome || is_over) {
      return {.progress = std::exchange(session.progress, std::nullopt),
              .outcome = session.outcome};
    }
    changed_.wait_until(mutex_, deadline);
  }
}

Result<void> BusCarrier::cancel(const MoveOrder& order, Deadline deadline) {
  bus::Envelope envelope;
  envelope.mutable_cancel_migration()->set_session(order.session);
  TRY(bus_.request(order.source, std::move(envelope), deadline));
  return {};
}

Result<SessionStatus> BusCarrier::query(const MoveOrder& order, Deadline deadline) {
  bus::Envelope envelope;
  envelope.mutable_query_migration()->set_session(order.session);
  const auto reply = bus_.request(order.source, std::move(envelope), deadline);
  if (!reply && reply.error().code() == Errc::kNotFound) return SessionStatus{};
  if (!reply) return tl::unexpected(reply.error());
  const bus::MigrationOutcome& outcome = reply->migration_outcome();
  if (outcome.goes_on()) return SessionStatus{.kind = SessionStatus::Kind::kGoesOn, .outcome = {}};
  return SessionStatus{.kind = SessionStatus::Kind::kEnded, .outcome = read_outcome(outcome)};
}

Result<Presence> BusCarrier::locate(const std::string& host, const VmId& vm, Deadline deadline) {
  bus::Envelope envelope;
  envelope.mutable_list_vms();
  const auto reply = TRY(bus_.request(host, std::move(envelope), deadline));
  if (!reply.has_vm_list()) return fail(Errc::kCorrupt, host + " answered something else");
  for (const bus::Vm& one : reply.vm_list().vms()) {
    if (one.uuid() == vm.uuid) return presence(vm_state(one.state()));
  }
  return Presence::kAbsent;
}

Result<void> BusCarrier::settle(const std::string& host, const VmId& vm, placer::Verdict verdict,
                                Deadline deadline) {
  bus::Envelope envelope;
  envelope.mutable_settle_vm()->set_vm_uuid(vm.uuid);
  envelope.mutable_settle_vm()->set_verdict(
      verdict == placer::Verdict::kResume ? bus::SettleVm::RESUME : bus::SettleVm::DISCARD);
  TRY(bus_.request(host, std::move(envelope), deadline));
  return {};
}

void BusCarrier::on_update(const bus::MigrationUpdate& update) {
  {
    const MutexLock lock(mutex_);
    Session* const session = find(update.session());
    if (session == nullptr) return;
    session->progress = MoveProgress{.phase = update.phase(),
                                     .stream_bytes = update.stream_bytes(),
                                     .wire_bytes = update.wire_bytes(),
                                     .page_refs = update.page_refs(),
                                     .bytes_remaining = update.bytes_remaining(),
                                     .disk_bytes = update.disk_bytes()};
  }
  changed_.notify_all();
}

void BusCarrier::on_outcome(const bus::MigrationOutcome& outcome) {
  {
    const MutexLock lock(mutex_);
    Session* const session = find(outcome.session());
    if (session == nullptr) return;
    session->outcome = read_outcome(outcome);
  }
  changed_.notify_all();
}

}  // namespace samepage::control
