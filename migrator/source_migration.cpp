#include "migrator/source_migration.h"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "core/check.h"
#include "core/log.h"
#include "core/mutex.h"
#include "migrator/control_forwarder.h"
#include "migrator/copy_pace.h"
#include "migrator/emulation.h"
#include "migrator/event_queue.h"
#include "migrator/finish_gate.h"
#include "migrator/guest_watch.h"
#include "migrator/job_watch.h"
#include "migrator/leaving_disks.h"
#include "migrator/owner_search.h"
#include "migrator/session_dialer.h"
#include "migrator/session_sockets.h"
#include "migrator/socket_listener.h"
#include "migrator/socket_stream.h"
#include "migrator/stream_set.h"
#include "migrator/target_talk.h"

namespace samepage::migrator {
namespace {

using source::Ended;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{50};

std::string show_time(std::chrono::milliseconds time) {
  return fmt::format("{:g} s", std::chrono::duration<double>(time).count());
}

Deadline in(std::chrono::milliseconds time) {
  return steady_clock::now() + time;
}

}  // namespace

/// One control thread (run()'s caller) owns the state; the others report events to it.
/// Members in order of construction: threads last, so that they end before what they use.
class SourceMigration::Impl final {
 public:
  Impl(SourceOptions options, Hypervisor& hypervisor, MakeRelay make_relay, LeavingDiskList disks)
      : options_(std::move(options)),
        hypervisor_(hypervisor),
        make_relay_(std::move(make_relay)),
        dialer_({.session = options_.session,
                 .key = tls_pre_shared_key(options_.secret).bytes,
                 .address = options_.target_address,
                 .port = options_.target_port,
                 .connect_max = options_.connect_max},
                wire_),
        pace_({.vm = options_.vm,
               .downtime_max = options_.downtime_max,
               .postcopy = options_.mode.postcopy,
               .switch_look = options_.switch_look},
              hypervisor_),
        job_(options_.vm, options_.report_every, hypervisor_),
        disks_(options_.disks, std::move(disks), [this](Error why) { stop_for(std::move(why)); }),
        gate_({.postcopy = options_.mode.postcopy, .switch_max = options_.switch_max}, disks_,
              [this](Error why) { stop_for(std::move(why)); }) {}

  SourceOutcome run(const std::function<void(const SourceProgress&)>& on_progress);
  void push(source::Event event) { events_.push(std::move(event)); }
  void saw(VmEventKind kind);
  const VmId& vm() const { return options_.vm; }

 private:
  Result<void> connect();
  void take(const source::Event& event);
  void enter(SourcePhase phase);
  void begin_copying();
  void accept_streams();
  StreamCarrierParts stream_of(Fd socket, Channel channel);
  void look_at_clock();
  void stop_copying();
  void cut();
  Owner search_owner();
  void stop_for(Error why) { push(source::StopAsked{std::move(why)}); }
  void send(Signal signal);
  void close(Side runs_on);
  void await_migrate();

  Result<void> move_disks_and_memory();

  // Each the body of a thread.
  void migrate();
  void report(const std::stop_token& stop,
              const std::function<void(const SourceProgress&)>& on_progress);

  SourceOutcome outcome(steady_clock::time_point began);

  const SourceOptions options_;
  Hypervisor& hypervisor_;
  const MakeRelay make_relay_;
  WireCounter wire_;
  const SessionDialer dialer_;
  GuestWatch guest_;
  CopyPace pace_;
  JobWatch job_;
  EventQueue<source::Event> events_;
  Deadline session_ends_ = Deadline::max();

  // The control thread's own.
  source::State state_ = source::Connecting{};
  Deadline phase_ends_ = Deadline::max();
  bool target_lost_ = false;
  bool has_cut_late_ = false;
  bool is_emulated_ = false;

  Mutex mutex_;
  std::condition_variable_any changed_;
  SourcePhase shown_phase_ GUARDED_BY(mutex_) = SourcePhase::kConnecting;
  std::optional<Error> migrate_error_ GUARDED_BY(mutex_);
  bool migrate_returned_ GUARDED_BY(mutex_) = false;
  StreamSet streams_;
  LeavingDisks disks_;
  FinishGate gate_;

  TargetTalk talk_{[this](source::Event event) { push(std::move(event)); }};
  std::unique_ptr<SocketListener> stream_listener_;
  std::unique_ptr<ControlForwarder> control_;
  std::jthread accept_thread_;
  std::jthread migrate_thread_;
  std::jthread report_thread_;
};

SourceOutcome SourceMigration::Impl::run(
    const std::function<void(const SourceProgress&)>& on_progress) {
  const auto began = steady_clock::now();
  session_ends_ = in(options_.total_max);
  if (auto connected = connect(); connected) {
    report_thread_ = std::jthread(
        [this, &on_progress](const std::stop_token& stop) { report(stop, on_progress); });
    take(source::Connected{});
  } else {
    take(source::StopAsked{std::move(connected).error()});
  }
  while (!std::holds_alternative<Ended>(state_)) {
    if (const auto event = events_.pop(in(kTick))) take(*event);
    look_at_clock();
  }
  close(std::get<Ended>(state_).runs_on);
  return outcome(began);
}

Result<void> SourceMigration::Impl::connect() {
  const VmInfo vm = TRY(find_vm(hypervisor_, options_.vm));
  guest_.begin(vm.state);
  is_emulated_ = is_emulated(vm.pid);
  if (options_.mode.postcopy && vm.state != VmState::kRunning) {
    return fail(Errc::kInvalid, "post-copy is for a VM that runs; migrate it without");
  }
  TRY(make_socket_dir(options_.socket_dir));
  auto signals = TRY(dialer_.open(Channel::kSignal));
  TRY(talk_.open(std::move(signals), in(options_.connect_max)));
  // Here, so that the target hears of it and waits for nobody.
  if (options_.mode.postcopy && !disks_.empty()) {
    return fail(
        Errc::kInvalid,
        "it has a disk of the image store, which must be across before it runs on the other "
        "host: migrate it without --postcopy");
  }
  TRY(disks_.begin([this] { return dialer_.open(Channel::kDisk); }));

  stream_listener_ =
      TRY(SocketListener::listen_unix(stream_socket_path(options_.socket_dir, options_.session)));
  control_ = TRY(ControlForwarder::create(
      {.path = control_socket_path(options_.socket_dir, options_.session),
       .deadline = session_ends_ + options_.answer_max,
       .may_finish =
           gate_.is_needed() ? [this] { return gate_.may_finish(); } : std::function<bool()>()},
      [this] { return dialer_.open(Channel::kControl); },
      [this] { push(source::FinishHanded{}); }));
  return {};
}

/// Moves to the next phase and does what it asks for. A phase may end while it is entered, so
/// this recurses; the phases have an order, so not for long.
void SourceMigration::Impl::take(const source::Event& event) {
  if (std::holds_alternative<source::TargetLost>(event)) target_lost_ = true;
  auto next = source::step(state_, event);
  if (!next && std::holds_alternative<source::TargetResumed>(event)) {
    return take(source::TargetLost{Error(Errc::kCorrupt, "the target resumed the guest unasked")});
  }
  if (!next) {
    log_warning("ignored an event session={} error=\"{}\"", options_.session,
                next.error().message());
    return;
  }
  const SourcePhase before = source::phase(state_);
  state_ = std::move(*next);
  const SourcePhase now = source::phase(state_);
  const bool is_trouble = std::holds_alternative<source::StopAsked>(event) ||
                          std::holds_alternative<source::TargetLost>(event) ||
                          std::holds_alternative<source::TargetRefused>(event);
  if (now == SourcePhase::kPulling && is_trouble) {
    phase_ends_ = std::min(phase_ends_, in(options_.answer_max));
  }
  if (now == before) return;
  {
    const MutexLock lock(mutex_);
    shown_phase_ = now;
  }
  enter(now);
}

void SourceMigration::Impl::enter(SourcePhase phase) {
  phase_ends_ = Deadline::max();
  switch (phase) {
    case SourcePhase::kConnecting:
      return;
    case SourcePhase::kCopying:
      return begin_copying();
    case SourcePhase::kPulling:
    case SourcePhase::kEnded:
      return pace_.end();
    case SourcePhase::kStopping:
      phase_ends_ = in(options_.stop_max);
      log_info("migration is given up session={} why=\"{}\"", options_.session,
               std::get<source::Stopping>(state_).why.message());
      return stop_copying();
    case SourcePhase::kWithdrawing:
      pace_.end();
      return take(source::OwnerFound{search_owner()});
    case SourcePhase::kReleasing:
      pace_.end();
      phase_ends_ = in(options_.answer_max);
      return send({.kind = SignalKind::kRelease, .resume = !guest_.paused_by_owner(), .text = {}});
  }
}

void SourceMigration::Impl::begin_copying() {
  talk_.listen(session_ends_ + 2 * options_.answer_max);
  accept_thread_ = std::jthread([this] { accept_streams(); });
  pace_.begin(is_emulated_);
  job_.begin();
  migrate_thread_ = std::jthread([this] { migrate(); });
}

/// QEMU takes the first connection for its main one, so the target's must come in the same order.
void SourceMigration::Impl::accept_streams() {
  for (unsigned number = 0; number <= options_.mode.streams; ++number) {
    auto socket = stream_listener_->accept(session_ends_);
    if (!socket) return;
    auto parts = stream_of(std::move(*socket), number == 0 ? Channel::kData : Channel::kMore);
    if (!streams_.add(std::move(parts), options_.mode.streams + 1)) return;
  }
}

StreamCarrierParts SourceMigration::Impl::stream_of(Fd socket, Channel channel) {
  StreamCarrierParts parts;
  auto qemu = std::make_shared<Fd>(std::move(socket));
  parts.open_qemu = [this, qemu]() -> Result<std::unique_ptr<ByteStream>> {
    return pace_.brake(std::make_unique<SocketStream>(std::move(*qemu)));
  };
  parts.open_peer = [this, channel] { return dialer_.open(channel); };
  parts.make_relay = [this](RelayEnds ends) {
    ends.passes = pace_.passes();
    return make_relay_(ends);
  };
  parts.on_end = [this](Result<void> ended) {
    if (!ended) push(source::StopAsked{std::move(ended).error().within("relay")});
  };
  return parts;
}

void SourceMigration::Impl::saw(VmEventKind kind) {
  guest_.saw(kind, steady_clock::now());
  if (guest_.stopped_at()) {
    pace_.guest_stopped();
    disks_.hurry();
  }
  if (kind != VmEventKind::kPostcopy) return;
  gate_.saw_switch();
  push(source::SwitchedToPostcopy{});
}

void SourceMigration::Impl::look_at_clock() {
  const auto now = steady_clock::now();
  switch (source::phase(state_)) {
    case SourcePhase::kCopying:
      if (now < session_ends_) return;
      return take(source::StopAsked{
          Error(Errc::kTimedOut, "it was not across after " + show_time(options_.total_max))});
    case SourcePhase::kStopping:
      if (now >= phase_ends_ && !std::exchange(has_cut_late_, true)) {
        log_warning("libvirt does not end the migration: its connections are cut session={}",
                    options_.session);
      }
      if (target_lost_ || now >= phase_ends_) cut();
      return;
    case SourcePhase::kPulling:
      // What keeps libvirt waiting for nothing.
      if (now >= phase_ends_) cut();
      return;
    case SourcePhase::kReleasing:
      if (now < phase_ends_) return;
      return take(source::TargetLost{
          Error(Errc::kTimedOut, "the target did not say whether the guest runs")});
    default:
      return;
  }
}

/// What does not end in time ends for want of connections.
void SourceMigration::Impl::stop_copying() {
  disks_.stop();
  if (!target_lost_) return pace_.cancel();
  pace_.end();
  cut();
}

/// From here on nothing passes, and what the control connection handed to libvirt is final.
void SourceMigration::Impl::cut() {
  if (stream_listener_) stream_listener_->stop();
  streams_.stop();
  disks_.stop();
  if (control_) control_->stop();
}

Owner SourceMigration::Impl::search_owner() {
  cut();
  GivenUp given_up{.vm = options_.vm,
                   .may_be_halved = options_.mode.postcopy,
                   .let_finish = gate_.has_let_finish(),
                   .why = {}};
  {
    const MutexLock lock(mutex_);
    given_up.why = migrate_error_;
  }
  return find_owner(given_up, *control_, guest_, hypervisor_);
}

void SourceMigration::Impl::send(Signal signal) {
  if (auto sent = talk_.send(signal); !sent) {
    take(source::TargetLost{std::move(sent).error().within("tell the target")});
  }
}

/// The memory begins when little of the disks is left: it is across the sooner, and a guest that
/// stands still should not wait for its disks.
Result<void> SourceMigration::Impl::move_disks_and_memory() {
  TRY(disks_.wait_until_near(session_ends_));
  return hypervisor_.migrate(
      {.vm = options_.vm,
       .migrate_socket = stream_socket_path(options_.socket_dir, options_.session),
       .control_socket = control_socket_path(options_.socket_dir, options_.session),
       .downtime_max = CopyPace::kDowntimeNone,
       .mode = options_.mode});
}

void SourceMigration::Impl::migrate() {
  const auto done = move_disks_and_memory();
  pace_.end();
  std::optional<Error> error;
  if (!done) error = done.error();
  {
    const MutexLock lock(mutex_);
    migrate_error_ = error;
    migrate_returned_ = true;
    changed_.notify_all();
  }
  push(source::MigrateReturned{std::move(error)});
}

void SourceMigration::Impl::report(const std::stop_token& stop,
                                   const std::function<void(const SourceProgress&)>& on_progress) {
  const std::stop_callback wake(stop, [this] {
    const MutexLock lock(mutex_);
    changed_.notify_all();
  });
  while (!stop.stop_requested()) {
    SourceProgress progress;
    {
      const MutexLock lock(mutex_);
      const Deadline next = in(options_.report_every);
      while (!stop.stop_requested() && steady_clock::now() < next) {
        changed_.wait_until(mutex_, next);
      }
      if (stop.stop_requested()) return;
      progress.phase = shown_phase_;
    }
    progress.relay = streams_.counters();
    progress.wire_bytes = wire_.total();
    progress.disk_bytes = disks_.counters().bytes;
    if (progress.phase == SourcePhase::kCopying || progress.phase == SourcePhase::kPulling) {
      progress.bytes_remaining = job_.bytes_remaining();
    }
    if (on_progress) on_progress(progress);
  }
}

/// Waits until libvirt is through, too: it needs the connections to the end.
void SourceMigration::Impl::close(Side runs_on) {
  if (runs_on == Side::kSource) {
    cut();
    const Error why = std::get<Ended>(state_).error.value_or(Error(Errc::kUnavailable, "stopped"));
    talk_.send_last({.kind = SignalKind::kAborted, .resume = false, .text = why.message()},
                    options_.answer_max);
  }
  if (runs_on == Side::kUnknown) {
    // Nothing more may be said, and libvirt's part of it is over or must end.
    talk_.shut_down();
    cut();
  }
  await_migrate();
  report_thread_ = {};
  job_.finish();
  pace_.finish();
  cut();
  talk_.close();
  if (accept_thread_.joinable()) accept_thread_.join();
  streams_.clear();
  disks_.finish();
  stream_listener_.reset();
  control_.reset();
}

/// libvirt needs the connections until it is through; one that never is loses them.
void SourceMigration::Impl::await_migrate() {
  if (!migrate_thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    const Deadline deadline = in(options_.answer_max);
    while (!migrate_returned_ && steady_clock::now() < deadline) {
      changed_.wait_until(mutex_, deadline);
    }
  }
  cut();
  migrate_thread_.join();
}

SourceOutcome SourceMigration::Impl::outcome(steady_clock::time_point began) {
  using std::chrono::duration_cast;
  using std::chrono::microseconds;
  const auto& ended = std::get<Ended>(state_);
  SourceOutcome outcome;
  outcome.runs_on = ended.runs_on;
  outcome.error = ended.error;
  outcome.wire_bytes = wire_.total();
  outcome.total = duration_cast<microseconds>(steady_clock::now() - began);
  outcome.relay = streams_.counters();
  outcome.disk_bytes = disks_.counters().bytes;
  const auto resumed_at = talk_.resumed_at();
  const auto stopped_at = guest_.stopped_at();
  // With post-copy the guest runs long before the target says so.
  const bool is_known = ended.runs_on == Side::kTarget && !options_.mode.postcopy;
  if (is_known && stopped_at && resumed_at && *resumed_at > *stopped_at) {
    outcome.downtime = duration_cast<microseconds>(*resumed_at - *stopped_at);
  }
  return outcome;
}

Result<std::unique_ptr<SourceMigration>> SourceMigration::create(SourceOptions options,
                                                                 Hypervisor& hypervisor,
                                                                 MakeRelay make_relay,
                                                                 LeavingDiskList disks) {
  TRY(check_session_name(options.session));
  if (options.vm.uuid.empty()) return fail(Errc::kInvalid, "no VM is named");
  if (options.target_port == 0) return fail(Errc::kInvalid, "the target has no port");
  if (options.mode.streams > MigrateMode::kStreamsMax) {
    return fail(Errc::kInvalid,
                "at most " + std::to_string(MigrateMode::kStreamsMax) + " parallel connections");
  }
  auto impl = std::make_unique<Impl>(std::move(options), hypervisor, std::move(make_relay),
                                     std::move(disks));
  return std::unique_ptr<SourceMigration>(new SourceMigration(std::move(impl)));
}

SourceMigration::SourceMigration(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SourceMigration::~SourceMigration() = default;

SourceOutcome SourceMigration::run(const std::function<void(const SourceProgress&)>& on_progress) {
  return impl_->run(on_progress);
}

void SourceMigration::cancel() {
  impl_->push(source::StopAsked{Error(Errc::kUnavailable, "the migration was cancelled")});
}

void SourceMigration::abandon() {
  impl_->push(source::Abandoned{});
}

void SourceMigration::on_vm_event(const VmEvent& event) {
  if (event.vm == impl_->vm()) impl_->saw(event.kind);
}

}  // namespace samepage::migrator
