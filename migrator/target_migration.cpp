#include "migrator/target_migration.h"

#include <algorithm>
#include <condition_variable>
#include <list>
#include <thread>
#include <utility>

#include <unistd.h>

#include "core/log.h"
#include "core/mutex.h"
#include "migrator/arriving_disks.h"
#include "migrator/event_queue.h"
#include "migrator/guest_watch.h"
#include "migrator/session_server.h"
#include "migrator/session_sockets.h"
#include "migrator/socket_stream.h"
#include "migrator/stream_pair.h"
#include "migrator/stream_set.h"

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;
using target::Ended;

constexpr std::chrono::milliseconds kTick{50};
constexpr std::chrono::milliseconds kDeliveryTick{1};
constexpr std::chrono::milliseconds kRetryEvery{10};
constexpr std::chrono::milliseconds kSignalMax{5'000};
constexpr std::chrono::milliseconds kFarewellMax{60'000};
constexpr std::chrono::milliseconds kCleanUpMax{5'000};
constexpr std::size_t kControlsMax = 4;

Deadline in(std::chrono::milliseconds time) {
  return steady_clock::now() + time;
}

bool worth_retrying(const Error& error) {
  return error.code() == Errc::kUnavailable || error.code() == Errc::kTimedOut;
}

}  // namespace

/// One control thread (run()'s caller) owns the state; the others report events to it.
/// Members in order of construction: threads last, so that they end before what they use.
class TargetMigration::Impl {
 public:
  Impl(TargetOptions options, Hypervisor& hypervisor, MakeRelay make_relay)
      : options_(std::move(options)),
        hypervisor_(hypervisor),
        make_relay_(std::move(make_relay)),
        session_ends_(in(options_.total_max)),
        phase_ends_(in(options_.source_max)),
        disks_(options_.expect_disk, session_ends_,
               [this](Error why) { push(target::RelayFailed{std::move(why).within("disk")}); }) {}

  ~Impl() { stop_connections(); }

  Result<void> listen();
  std::uint16_t port() const { return server_->port(); }
  TargetOutcome run();
  void push(target::Event event) { events_.push(std::move(event)); }

 private:
  void take(const target::Event& event);
  void enter(TargetPhase phase);
  void look_at_clock();
  void resume_guest(bool resume);
  void discard_copy();
  std::optional<Error> retry(const std::function<Result<void>()>& attempt);
  void send(Signal signal);
  void say_farewell();
  void look_for_copy(Ended& ended);
  void cut();
  void stop_connections();
  bool delivered();

  // Called from the server's threads.
  void add_channel(Channel channel, std::unique_ptr<ByteStream> stream);
  void add_signals(std::unique_ptr<ByteStream> stream);
  void add_data(std::unique_ptr<ByteStream> stream, Channel channel);
  void add_control(std::unique_ptr<ByteStream> stream);

  Result<std::unique_ptr<ByteStream>> connect_to_qemu(Channel channel);
  Result<bool> may_connect(Channel channel);
  std::unique_ptr<ByteStream> adopt(Fd socket, Channel channel);
  void read_signals();
  Result<void> hear(const Signal& signal);

  const TargetOptions options_;
  Hypervisor& hypervisor_;
  const MakeRelay make_relay_;
  const Deadline session_ends_;
  WireCounter wire_;
  EventQueue<target::Event> events_;

  // The control thread's own.
  target::State state_ = target::Waiting{};
  Deadline phase_ends_;
  bool abandoned_ = false;

  Mutex mutex_;
  std::condition_variable_any changed_;
  bool cut_ GUARDED_BY(mutex_) = false;            // No data and control channels any more.
  bool signals_ended_ GUARDED_BY(mutex_) = false;  // Nothing more is to be heard of the source.
  std::unique_ptr<SignalLink> signals_ GUARDED_BY(mutex_);  // Set once, then stays.
  bool has_data_ GUARDED_BY(mutex_) = false;                // Its channel came,
  bool has_main_ GUARDED_BY(mutex_) = false;                // and its connection to QEMU is there.
  StreamSet streams_;
  ArrivingDisks disks_;
  std::list<std::unique_ptr<StreamPair>> controls_ GUARDED_BY(mutex_);
  std::jthread signal_thread_ GUARDED_BY(mutex_);
  std::unique_ptr<SessionServer> server_;
};

Result<void> TargetMigration::Impl::listen() {
  const auto vm = find_vm(hypervisor_, options_.vm);
  if (vm) return fail(Errc::kInvalid, "the VM " + options_.vm.uuid + " is on this host already");
  if (vm.error().code() != Errc::kNotFound) return tl::unexpected(vm.error());
  TRY(make_socket_dir(options_.socket_dir));
  auto listener = TRY(SocketListener::listen_tcp(options_.listen_address, options_.ports));
  server_ = std::make_unique<SessionServer>(
      SessionServerOptions{.session = options_.session,
                           .key = tls_pre_shared_key(options_.secret).bytes,
                           .deadline = session_ends_,
                           .handshake_max = options_.handshake_max},
      std::move(listener), wire_, [this](Channel channel, std::unique_ptr<ByteStream> stream) {
        add_channel(channel, std::move(stream));
      });
  return {};
}

TargetOutcome TargetMigration::Impl::run() {
  while (!std::holds_alternative<Ended>(state_)) {
    const bool delivering = target::phase(state_) == TargetPhase::kReleased;
    if (const auto event = events_.pop(in(delivering ? kDeliveryTick : kTick))) take(*event);
    look_at_clock();
  }
  say_farewell();
  stop_connections();
  disks_.finish();
  auto& ended = std::get<Ended>(state_);
  if (ended.copy == Copy::kInDoubt && !abandoned_) look_for_copy(ended);
  static_cast<void>(::unlink(stream_socket_path(options_.socket_dir, options_.session).c_str()));

  TargetOutcome outcome;
  outcome.copy = ended.copy;
  outcome.error = ended.error;
  outcome.wire_bytes = wire_.total();
  outcome.relay = streams_.counters();
  return outcome;
}

/// Moves to the next phase and does what it asks for. A phase may end while it is entered, so
/// this recurses; the phases have an order, so not for long.
void TargetMigration::Impl::take(const target::Event& event) {
  const bool receiving = target::phase(state_) == TargetPhase::kReceiving;
  if (const auto* failed = std::get_if<target::RelayFailed>(&event); failed && receiving) {
    send({.kind = SignalKind::kRefused, .resume = false, .text = failed->why.message()});
  }
  if (std::holds_alternative<target::Abandoned>(event)) abandoned_ = true;

  auto next = target::step(state_, event);
  if (!next) {
    log_warning("ignored an event session={} error=\"{}\"", options_.session,
                next.error().message());
    return;
  }
  const TargetPhase before = target::phase(state_);
  state_ = std::move(*next);
  const TargetPhase now = target::phase(state_);
  if (now != before) enter(now);
}

void TargetMigration::Impl::enter(TargetPhase phase) {
  switch (phase) {
    case TargetPhase::kWaiting:
      return;
    case TargetPhase::kReceiving:
      phase_ends_ = session_ends_;
      return send({.kind = SignalKind::kReady, .resume = false, .text = {}});
    case TargetPhase::kReleased:
      phase_ends_ = in(options_.deliver_max);
      return look_at_clock();
    case TargetPhase::kResuming:
      return resume_guest(std::get<target::Resuming>(state_).resume);
    case TargetPhase::kDiscarding:
      return discard_copy();
    case TargetPhase::kEnded:
      const auto& ended = std::get<Ended>(state_);
      if (abandoned_) return;
      if (ended.copy == Copy::kNone) return send({.kind = SignalKind::kCleared, .text = {}});
      if (!ended.error) return send({.kind = SignalKind::kResumed, .text = {}});
      return send({.kind = SignalKind::kRefused, .resume = false, .text = ended.error->message()});
  }
}

void TargetMigration::Impl::look_at_clock() {
  const TargetPhase phase = target::phase(state_);
  if (phase == TargetPhase::kReleased && delivered()) return take(target::StreamDelivered{});
  const bool bounded = phase == TargetPhase::kWaiting || phase == TargetPhase::kReceiving ||
                       phase == TargetPhase::kReleased;
  if (!bounded || steady_clock::now() < phase_ends_) return;
  take(target::TimedOut{
      Error(Errc::kTimedOut, std::string("took too long while ") + std::string(to_string(phase)))});
}

bool TargetMigration::Impl::delivered() {
  return streams_.delivered();
}

void TargetMigration::Impl::resume_guest(bool resume) {
  if (!resume) return take(target::Done{});
  take(target::Done{retry([this] { return hypervisor_.resume(options_.vm); })});
}

/// libvirt destroys a copy that is not complete by itself when its control connection closes.
void TargetMigration::Impl::discard_copy() {
  cut();
  take(target::Done{retry([this]() -> Result<void> {
    auto discarded = hypervisor_.discard_paused(options_.vm);
    if (!discarded && discarded.error().code() == Errc::kNotFound) return {};
    return discarded;
  })});
}

std::optional<Error> TargetMigration::Impl::retry(const std::function<Result<void>()>& attempt) {
  const Deadline deadline = in(options_.resume_max);
  for (;;) {
    auto done = attempt();
    if (done) return std::nullopt;
    if (!worth_retrying(done.error()) || steady_clock::now() >= deadline) return done.error();
    const MutexLock lock(mutex_);
    changed_.wait_until(mutex_, in(kRetryEvery));
  }
}

void TargetMigration::Impl::send(Signal signal) {
  SignalLink* link = nullptr;
  {
    const MutexLock lock(mutex_);
    link = signals_.get();
  }
  // A source that is lost is noticed, and said, by whoever reads its signals.
  if (link != nullptr) static_cast<void>(link->send(signal, in(kSignalMax)));
}

/// The source's libvirt needs the control connection until it is through; its agent then leaves.
void TargetMigration::Impl::say_farewell() {
  const Copy copy = std::get<Ended>(state_).copy;
  if (abandoned_ || copy == Copy::kInDoubt) return;
  const MutexLock lock(mutex_);
  const Deadline leaves_by = in(kFarewellMax);
  while (signals_ && !signals_ended_ && steady_clock::now() < leaves_by) {
    changed_.wait_until(mutex_, leaves_by);
  }
}

/// A copy that never got its last byte is gone as soon as libvirt has noticed that the control
/// connection closed. A complete one stays, in doubt.
void TargetMigration::Impl::look_for_copy(Ended& ended) {
  const Deadline deadline = in(kCleanUpMax);
  do {
    const auto vm = find_vm(hypervisor_, options_.vm);
    if (!vm && vm.error().code() == Errc::kNotFound) {
      ended.copy = Copy::kNone;
      return;
    }
    if (delivered()) return;
    const MutexLock lock(mutex_);
    changed_.wait_until(mutex_, in(kRetryEvery));
  } while (steady_clock::now() < deadline);
}

void TargetMigration::Impl::cut() {
  std::list<std::unique_ptr<StreamPair>> controls;
  {
    const MutexLock lock(mutex_);
    cut_ = true;
    controls.swap(controls_);
    changed_.notify_all();
  }
  streams_.stop();
  disks_.stop();
}

void TargetMigration::Impl::stop_connections() {
  if (abandoned_) {
    const MutexLock lock(mutex_);
    if (signals_) signals_->shut_down();
  }
  cut();
  if (server_) server_->stop();
  cut();
  std::jthread signal_thread;
  {
    const MutexLock lock(mutex_);
    if (signals_ && !abandoned_) signals_->finish();
    if (signals_) signals_->shut_down();
    signal_thread = std::move(signal_thread_);
  }
}

void TargetMigration::Impl::add_channel(Channel channel, std::unique_ptr<ByteStream> stream) {
  switch (channel) {
    case Channel::kSignal:
      return add_signals(std::move(stream));
    case Channel::kData:
    case Channel::kMore:
      return add_data(std::move(stream), channel);
    case Channel::kControl:
      return add_control(std::move(stream));
    case Channel::kDisk:
      return disks_.add(std::move(stream));
  }
}

void TargetMigration::Impl::add_signals(std::unique_ptr<ByteStream> stream) {
  const MutexLock lock(mutex_);
  if (signals_) return;
  signals_ = std::make_unique<SignalLink>(std::move(stream));
  push(target::SourceConnected{});
  signal_thread_ = std::jthread([this] { read_signals(); });
}

void TargetMigration::Impl::add_data(std::unique_ptr<ByteStream> stream, Channel channel) {
  {
    const MutexLock lock(mutex_);
    if (cut_ || (channel == Channel::kData && std::exchange(has_data_, true))) return;
  }
  StreamCarrierParts parts;
  parts.open_qemu = [this, channel] { return connect_to_qemu(channel); };
  auto peer = std::make_shared<std::unique_ptr<ByteStream>>(std::move(stream));
  parts.open_peer = [peer]() -> Result<std::unique_ptr<ByteStream>> { return std::move(*peer); };
  parts.make_relay = make_relay_;
  parts.on_end = [this](Result<void> ended) {
    if (delivered()) return push(target::StreamDelivered{});
    if (!ended) push(target::RelayFailed{std::move(ended).error().within("relay")});
  };
  static_cast<void>(streams_.add(std::move(parts), MigrateMode::kStreamsMax + 1));
}

void TargetMigration::Impl::add_control(std::unique_ptr<ByteStream> stream) {
  auto socket = connect_unix(options_.libvirt_socket, in(options_.handshake_max));
  if (!socket) {
    log_error("could not reach libvirt session={} error=\"{}\"", options_.session,
              socket.error().message());
    return;
  }
  auto libvirt = std::make_unique<SocketStream>(std::move(*socket));
  const MutexLock lock(mutex_);
  controls_.remove_if([](const auto& pair) { return pair->done(); });
  if (cut_ || controls_.size() >= kControlsMax) return;
  controls_.push_back(std::make_unique<StreamPair>(std::move(stream), std::move(libvirt),
                                                   StreamPairHooks{}, session_ends_));
}

/// libvirt has prepared QEMU before the source sends a stream, but QEMU may be slow to listen, and
/// may have died since. It takes the first connection for the main one.
Result<std::unique_ptr<ByteStream>> TargetMigration::Impl::connect_to_qemu(Channel channel) {
  const std::string path = stream_socket_path(options_.socket_dir, options_.session);
  const Deadline deadline = in(options_.qemu_max);
  Error last(Errc::kTimedOut, "the main stream did not come");
  for (;;) {
    if (TRY(may_connect(channel))) {
      auto socket = connect_unix(path, deadline);
      if (socket) return adopt(*std::move(socket), channel);
      last = socket.error();
      if (const auto vm = find_vm(hypervisor_, options_.vm);
          !vm && vm.error().code() == Errc::kNotFound) {
        return fail(Errc::kUnavailable, "QEMU ended before the stream came");
      }
    }
    if (steady_clock::now() >= deadline) return tl::unexpected(last);
    const MutexLock lock(mutex_);
    changed_.wait_until(mutex_, in(kRetryEvery));
  }
}

/// Whether it is this channel's turn. kUnavailable: it never will be.
Result<bool> TargetMigration::Impl::may_connect(Channel channel) {
  const MutexLock lock(mutex_);
  if (cut_) return fail(Errc::kUnavailable, "the session ended before QEMU listened");
  return channel == Channel::kData || has_main_;
}

std::unique_ptr<ByteStream> TargetMigration::Impl::adopt(Fd socket, Channel channel) {
  const MutexLock lock(mutex_);
  if (channel == Channel::kData) has_main_ = true;
  changed_.notify_all();
  return std::make_unique<SocketStream>(std::move(socket));
}

void TargetMigration::Impl::read_signals() {
  SignalLink* link = nullptr;
  {
    const MutexLock lock(mutex_);
    link = signals_.get();
  }
  Error end = link->receive_all(session_ends_, [this](const Signal& one) { return hear(one); });
  push(target::SourceLost{std::move(end).within("hear from the source")});
  const MutexLock lock(mutex_);
  signals_ended_ = true;
  changed_.notify_all();
}

Result<void> TargetMigration::Impl::hear(const Signal& signal) {
  switch (signal.kind) {
    case SignalKind::kRelease:
      if (!disks_.have_arrived()) {
        return fail(Errc::kCorrupt, "the guest was released before its disks were here");
      }
      push(target::ReleaseAsked{signal.resume});
      return {};
    case SignalKind::kAborted:
      push(target::AbortAsked{Error(Errc::kUnavailable, "the source: " + signal.text)});
      return {};
    default:
      return fail(Errc::kCorrupt, "a signal that no source sends");
  }
}

Result<std::unique_ptr<TargetMigration>> TargetMigration::create(TargetOptions options,
                                                                 Hypervisor& hypervisor,
                                                                 MakeRelay make_relay) {
  TRY(check_session_name(options.session));
  if (options.vm.uuid.empty()) return fail(Errc::kInvalid, "no VM is named");
  auto impl = std::make_unique<Impl>(std::move(options), hypervisor, std::move(make_relay));
  TRY(impl->listen());
  return std::unique_ptr<TargetMigration>(new TargetMigration(std::move(impl)));
}

TargetMigration::TargetMigration(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TargetMigration::~TargetMigration() = default;

std::uint16_t TargetMigration::port() const {
  return impl_->port();
}
TargetOutcome TargetMigration::run() {
  return impl_->run();
}
void TargetMigration::settle(Verdict verdict) {
  impl_->push(target::Settled{verdict});
}
void TargetMigration::supersede() {
  impl_->push(target::Superseded{});
}
void TargetMigration::abandon() {
  impl_->push(target::Abandoned{});
}

}  // namespace samepage::migrator
