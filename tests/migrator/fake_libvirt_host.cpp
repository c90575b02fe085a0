#include "tests/migrator/fake_libvirt_host.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

constexpr std::uint32_t kPrepare = 303;
constexpr std::uint32_t kFinish = 306;
constexpr std::size_t kHeadBytes = 28;
constexpr std::size_t kMoreBytes = 300'000;  // Of each stream of multifd.
constexpr std::array<std::byte, 4> kGreeting{};

Deadline in_time() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(60);
}

std::byte pattern(std::size_t at) {
  return static_cast<std::byte>(at * 7 % 253);
}

struct Message {
  RpcHeader header;
  std::string text;
  std::uint32_t last_word = 0;
};

std::uint32_t word(const std::vector<std::byte>& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8U | std::to_integer<std::uint32_t>(bytes[at + i]);
  return value;
}

Result<void> read_exactly(SocketStream& stream, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t got = TRY(stream.read_some(bytes, in_time()));
    if (got == 0) return fail(Errc::kUnavailable, "end of the connection");
    bytes = bytes.subspan(got);
  }
  return {};
}

Result<Message> read_message(SocketStream& stream) {
  std::vector<std::byte> bytes(4);
  TRY(read_exactly(stream, bytes));
  const std::size_t size = word(bytes, 0);
  if (size < kHeadBytes + 4 || size > 65536) return fail(Errc::kCorrupt, "no message");
  bytes.resize(size);
  TRY(read_exactly(stream, std::span(bytes).subspan(4)));
  Message message;
  message.header = {word(bytes, 4),  word(bytes, 8),  word(bytes, 12),
                    word(bytes, 16), word(bytes, 20), word(bytes, 24)};
  for (std::size_t i = kHeadBytes; i < size - 4; ++i) {
    message.text += static_cast<char>(std::to_integer<unsigned char>(bytes[i]));
  }
  message.last_word = word(bytes, size - 4);
  return message;
}

}  // namespace

/// A QEMU that waits for a stream: takes it to its end, checks it, and says so on its socket.
struct FakeLibvirtHost::Incoming {
  VmId vm;
  std::unique_ptr<SocketListener> listener;
  std::atomic<bool> complete = false;
  std::atomic<bool> ended = false;
  std::jthread qemu;
  unsigned streams = 0;
  bool postcopy = false;

  /// Reads so much, or to the stream's end; how much it was, when its bytes are right.
  static std::optional<std::size_t> take(SocketStream& stream, std::size_t bytes_max) {
    std::vector<std::byte> buffer(50'000);
    std::size_t seen = 0;
    for (;;) {
      if (seen == bytes_max) return seen;
      const auto rest = std::span(buffer).first(std::min(buffer.size(), bytes_max - seen));
      const auto got = stream.read_some(rest, in_time());
      if (!got) return std::nullopt;
      if (*got == 0) return seen;
      for (std::size_t i = 0; i < *got; ++i) {
        EXPECT_EQ(buffer[i], pattern(seen + i)) << "the stream arrived changed";
        if (buffer[i] != pattern(seen + i)) return std::nullopt;
      }
      seen += *got;
    }
  }

  void take_stream(std::size_t bytes_expected) {
    std::list<SocketStream> more;
    auto socket = listener->accept(in_time());
    if (!socket) return;
    SocketStream stream(std::move(*socket));
    for (unsigned i = 0; i < streams; ++i) {
      auto another = listener->accept(in_time());
      if (!another) return;
      more.emplace_back(std::move(*another));
    }
    bool right = true;
    for (SocketStream& another : more) right = right && take(another, kMoreBytes) == kMoreBytes;
    const auto seen = take(stream, bytes_expected);
    if (!seen) return;
    complete = right && seen == bytes_expected;
    const std::array<std::byte, 1> loaded{std::byte{1}};
    // As QEMU: it says so while the stream is open still, and leaves at its end.
    if (!complete || !stream.write_all(loaded, in_time())) return;
    std::array<std::byte, 1> nothing{};
    while (stream.read_some(nothing, in_time()).value_or(0) > 0) {
    }
  }
};

FakeLibvirtHost::FakeLibvirtHost(Options options, RunningLedger& ledger)
    : options_(std::move(options)), ledger_(ledger) {
  listener_ = SocketListener::listen_unix(libvirt_socket()).value();
  acceptor_ = std::jthread([this] {
    for (;;) {
      auto socket = listener_->accept(in_time());
      if (!socket) return;
      serving_.emplace_back([this, fd = std::move(*socket)]() mutable { serve(std::move(fd)); });
    }
  });
}

FakeLibvirtHost::~FakeLibvirtHost() {
  stop();
}

void FakeLibvirtHost::stop() {
  listener_->stop();
  if (acceptor_.joinable()) acceptor_.join();
  {
    const MutexLock lock(mutex_);
    for (const auto& client : clients_) client->shut_down();
  }
  serving_.clear();
}

void FakeLibvirtHost::add(const VmInfo& vm) {
  {
    const MutexLock lock(mutex_);
    vms_[vm.id] = vm;
  }
  if (vm.state == VmState::kRunning) ledger_.runs(options_.name, vm.id);
}

void FakeLibvirtHost::fail_resumes(int times, Errc code) {
  const MutexLock lock(mutex_);
  failing_resumes_ = times;
  resume_error_ = code;
}

void FakeLibvirtHost::reach(Moment moment) {
  if (const auto hook = hooks_.find(moment); hook != hooks_.end()) hook->second();
}

void FakeLibvirtHost::set_state(const VmId& vm, VmState state, VmEventKind event) {
  std::function<void(const VmEvent&)> observer;
  {
    const MutexLock lock(mutex_);
    vms_[vm].id = vm;
    vms_[vm].state = state;
    observer = observer_;
    if (state == VmState::kRunning) ledger_.runs(options_.name, vm);
    if (state != VmState::kRunning) ledger_.stops(options_.name, vm);
  }
  if (observer) observer({vm, event});
}

void FakeLibvirtHost::forget(const VmId& vm) {
  const MutexLock lock(mutex_);
  vms_.erase(vm);
  ledger_.stops(options_.name, vm);
}

Result<std::vector<VmInfo>> FakeLibvirtHost::vms() {
  const MutexLock lock(mutex_);
  std::vector<VmInfo> vms;
  for (const auto& [id, vm] : vms_) vms.push_back(vm);
  return vms;
}

Result<MigrationProgress> FakeLibvirtHost::migration_progress(const VmId& /*vm*/) {
  reach(Moment::kProgressAsked);
  return MigrationProgress{.bytes_processed = 5000, .bytes_remaining = 4242};
}

Result<void> FakeLibvirtHost::cancel_migration(const VmId& /*vm*/) {
  const MutexLock lock(mutex_);
  while (cancels_hang_ && outgoing_) ended_.wait(mutex_);
  if (!outgoing_) return fail(Errc::kInvalid, "no job is running");
  cancelled_ = true;
  outgoing_->shut_down();
  return {};
}

void FakeLibvirtHost::kill_incoming_qemu() {
  std::shared_ptr<Incoming> incoming;
  {
    const MutexLock lock(mutex_);
    incoming = incoming_.lock();
  }
  if (!incoming) return;
  incoming->listener->stop();
  forget(incoming->vm);
}

void FakeLibvirtHost::hang_cancels() {
  const MutexLock lock(mutex_);
  cancels_hang_ = true;
}

Result<void> FakeLibvirtHost::resume(const VmId& vm) {
  {
    const MutexLock lock(mutex_);
    if (failing_resumes_ > 0) {
      --failing_resumes_;
      return fail(resume_error_, "cannot resume");
    }
    const auto found = vms_.find(vm);
    if (found == vms_.end()) return fail(Errc::kNotFound, "no such VM");
    if (found->second.state == VmState::kRunning) return {};
  }
  set_state(vm, VmState::kRunning, VmEventKind::kResumed);
  return {};
}

Result<void> FakeLibvirtHost::discard_paused(const VmId& vm) {
  const MutexLock lock(mutex_);
  const auto found = vms_.find(vm);
  if (found == vms_.end()) return fail(Errc::kNotFound, "no such VM");
  if (found->second.state != VmState::kPaused) return fail(Errc::kInvalid, "not paused");
  vms_.erase(found);
  return {};
}

Result<void> FakeLibvirtHost::observe(std::function<void(const VmEvent&)> on_event) {
  const MutexLock lock(mutex_);
  observer_ = std::move(on_event);
  return {};
}

// The source's side.

Result<void> FakeLibvirtHost::call(SocketStream& control, std::uint32_t procedure,
                                   const std::string& text, std::uint32_t last_word) {
  const RpcHeader header{.program = 0x20008086, .version = 1, .procedure = procedure, .serial = 5};
  TRY(control.write_all(rpc_message(header, text, last_word), in_time()));
  const Message reply = TRY(read_message(control));
  if (reply.header.status != 0) return fail(Errc::kIo, "the target's libvirt: " + reply.text);
  return {};
}

Result<void> FakeLibvirtHost::open_streams(const MigrateRequest& request) {
  for (unsigned number = 0; number <= request.mode.streams; ++number) {
    auto stream =
        std::make_shared<SocketStream>(TRY(connect_unix(request.migrate_socket, in_time())));
    const MutexLock lock(mutex_);
    if (number == 0) outgoing_ = stream;
    if (number > 0) more_.push_back(stream);
  }
  return {};
}

Result<void> FakeLibvirtHost::send_stream(const MigrateRequest& request, bool& stopped) {
  TRY(open_streams(request));
  std::shared_ptr<SocketStream> stream;
  std::vector<std::shared_ptr<SocketStream>> more;
  {
    const MutexLock lock(mutex_);
    stream = outgoing_;
    more.swap(more_);
  }
  std::vector<std::byte> more_bytes(kMoreBytes);
  for (std::size_t i = 0; i < kMoreBytes; ++i) more_bytes[i] = pattern(i);
  for (const auto& another : more) TRY(another->write_all(more_bytes, in_time()));
  std::vector<std::byte> bytes(options_.stream_bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(i);
  const std::size_t half = bytes.size() / 2;
  TRY(stream->write_all(std::span(bytes).first(half), in_time()));
  reach(Moment::kHalfStreamed);

  if (TRY(vms()).front().state == VmState::kRunning) {
    set_state(request.vm, VmState::kPaused, VmEventKind::kPausedForMigration);
    stopped = true;
  }
  reach(Moment::kGuestStopped);
  for (const auto& another : more) TRY(another->finish_writing());
  return send_rest(std::span(bytes).subspan(half));
}

Result<void> FakeLibvirtHost::send_rest(std::span<const std::byte> rest) {
  std::shared_ptr<SocketStream> stream;
  {
    const MutexLock lock(mutex_);
    stream = outgoing_;
  }
  TRY(stream->write_all(rest, in_time()));
  std::array<std::byte, 1> loaded{};
  TRY(read_exactly(*stream, loaded));
  TRY(stream->finish_writing());
  const MutexLock lock(mutex_);
  if (cancelled_) return fail(Errc::kIo, "the migration was cancelled");
  return {};
}

Result<void> FakeLibvirtHost::start_postcopy(const VmId& /*vm*/) {
  const MutexLock lock(mutex_);
  if (!outgoing_) return fail(Errc::kInvalid, "no job is running");
  switches_ = true;
  return {};
}

bool FakeLibvirtHost::wait_for_switch() {
  const Deadline deadline = in_time();
  while (std::chrono::steady_clock::now() < deadline) {
    {
      const MutexLock lock(mutex_);
      if (switches_ || cancelled_) return switches_;
    }
    std::this_thread::yield();
  }
  return false;
}

/// As libvirt: after the switch Finish is called while the stream goes on, and the target's answer
/// comes when it has everything. What fails then leaves halves that neither host can run.
Result<void> FakeLibvirtHost::migrate_postcopy(const MigrateRequest& request,
                                               SocketStream& control) {
  TRY(open_streams(request));
  std::vector<std::byte> bytes(options_.stream_bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(i);
  const std::size_t half = bytes.size() / 2;
  std::shared_ptr<SocketStream> stream;
  {
    const MutexLock lock(mutex_);
    stream = outgoing_;
  }
  TRY(stream->write_all(std::span(bytes).first(half), in_time()));
  reach(Moment::kHalfStreamed);
  if (!wait_for_switch()) return fail(Errc::kIo, "the migration was cancelled");
  set_state(request.vm, VmState::kOther, VmEventKind::kPausedForMigration);
  set_state(request.vm, VmState::kOther, VmEventKind::kPostcopy);
  reach(Moment::kGuestStopped);
  auto rest =
      std::async(std::launch::async, [&] { return send_rest(std::span(bytes).subspan(half)); });
  const auto finished = call(control, kFinish, request.vm.uuid, 0);
  if (!finished) stream->shut_down();
  const auto sent = rest.get();
  TRY(finished);
  TRY(sent);
  reach(Moment::kFinishAnswered);
  forget(request.vm);
  return {};
}

Result<void> FakeLibvirtHost::migrate(const MigrateRequest& request) {
  SocketStream control(TRY(connect_unix(request.control_socket, in_time())));
  if (options_.greets) {
    auto greeting = kGreeting;
    TRY(read_exactly(control, greeting));
  }
  const std::string mode =
      std::to_string(request.mode.streams) + (request.mode.postcopy ? " postcopy " : " precopy ");
  TRY(call(control, kPrepare, request.vm.uuid + " " + mode + request.migrate_socket, 0));
  reach(Moment::kPrepared);
  if (request.mode.postcopy && !options_.converges) {
    auto done = migrate_postcopy(request, control);
    const MutexLock lock(mutex_);
    outgoing_.reset();
    return done;
  }

  bool stopped = false;
  const auto sent = send_stream(request, stopped);
  if (sent) reach(Moment::kPerformed);
  // As libvirt: a migration that failed is finished, too, so that the target cleans up.
  auto finished = call(control, kFinish, request.vm.uuid, sent ? 0 : 1);
  {
    const MutexLock lock(mutex_);
    outgoing_.reset();
    cancelled_ = false;
    ended_.notify_all();
  }
  if (sent && finished) {
    reach(Moment::kFinishAnswered);
    forget(request.vm);
    return {};
  }
  reach(Moment::kFinishFailed);
  if (stopped) set_state(request.vm, VmState::kRunning, VmEventKind::kResumed);
  return sent ? finished : sent;
}

// The target's side.

void FakeLibvirtHost::serve(Fd socket) {
  auto client = std::make_shared<SocketStream>(std::move(socket));
  {
    const MutexLock lock(mutex_);
    clients_.push_back(client);
  }
  std::shared_ptr<Incoming> incoming;
  if (options_.greets) static_cast<void>(client->write_all(kGreeting, in_time()));
  for (bool open = true; open;) {
    const auto message = read_message(*client);
    open = message && answer(*client, message->header, message->text, incoming, message->last_word);
  }
  // Who prepared a VM and left before Finish leaves none behind.
  if (incoming) {
    incoming->listener->stop();
    forget(incoming->vm);
  }
  client->shut_down();
}

bool FakeLibvirtHost::answer(SocketStream& client, const RpcHeader& call, const std::string& text,
                             std::shared_ptr<Incoming>& incoming, std::uint32_t last_word) {
  RpcHeader reply = call;
  reply.type = 1;
  if (call.procedure == kPrepare) {
    const std::size_t space = text.find(' ');
    incoming = std::make_shared<Incoming>();
    incoming->vm = VmId{text.substr(0, space)};
    incoming->streams = static_cast<unsigned>(std::stoul(text.substr(space + 1)));
    incoming->postcopy = text.find(" postcopy ") != std::string::npos;
    // The two hosts share a machine here: the same path, in the folder of this one.
    const std::string file = text.substr(text.rfind('/'));
    incoming->listener = SocketListener::listen_unix(options_.folder + file).value();
    incoming->qemu =
        std::jthread([this, qemu = incoming.get()] { qemu->take_stream(options_.stream_bytes); });
    {
      const MutexLock lock(mutex_);
      incoming_ = incoming;
    }
    set_state(incoming->vm, VmState::kPaused, VmEventKind::kStarted);
  } else if (call.procedure == kFinish && incoming) {
    // libvirt runs the guest of a post-copy migration at once, and waits for the rest of it.
    const bool runs = incoming->postcopy && last_word == 0;
    if (runs) set_state(incoming->vm, VmState::kRunning, VmEventKind::kResumed);
    if (last_word == 0) incoming->qemu.join();
    if (last_word == 0 && incoming->complete) {
      incoming.reset();
      reach(Moment::kFinishExecuted);
    } else if (runs) {
      // Half a guest: nobody may run it or throw it away.
      set_state(incoming->vm, VmState::kOther, VmEventKind::kPostcopy);
      incoming.reset();
      reply.status = 1;
    } else {
      incoming->listener->stop();
      forget(incoming->vm);
      incoming.reset();
      reply.status = 1;
    }
  }
  return static_cast<bool>(client.write_all(rpc_message(reply, "domain"), in_time()));
}

}  // namespace samepage::migrator
