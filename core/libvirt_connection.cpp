#include "core/libvirt_connection.h"

#include <array>
#include <atomic>
#include <chrono>
#include <optional>
#include <utility>

#include <libvirt/virterror.h>

#include "core/log.h"

namespace samepage {
namespace {

constexpr std::chrono::seconds kLookInterval{1};

// A libvirtd that says nothing for so long is given up: interval times (count + 1).
constexpr int kKeepAliveSeconds = 5;
constexpr unsigned kKeepAliveCount = 5;

constexpr std::size_t kSentenceSizeMax = 500;

Errc errc_of(const virError& error) {
  switch (error.code) {
    case VIR_ERR_NO_DOMAIN:
      return Errc::kNotFound;
    case VIR_ERR_NO_CONNECT:
    case VIR_ERR_INVALID_CONN:
    case VIR_ERR_RPC:
    case VIR_ERR_AUTH_UNAVAILABLE:
      return Errc::kUnavailable;
    case VIR_ERR_OPERATION_TIMEOUT:
    case VIR_ERR_AGENT_UNRESPONSIVE:
      return Errc::kTimedOut;
    case VIR_ERR_INVALID_ARG:
    case VIR_ERR_NO_SUPPORT:
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_DOM_EXIST:
    case VIR_ERR_OPERATION_INVALID:
    case VIR_ERR_OPERATION_DENIED:
    case VIR_ERR_OPERATION_UNSUPPORTED:
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
    case VIR_ERR_CONFIG_UNSUPPORTED:
    case VIR_ERR_CPU_INCOMPATIBLE:
    case VIR_ERR_MIGRATE_UNSAFE:
    case VIR_ERR_ACCESS_DENIED:
      return Errc::kInvalid;
    default:
      return error.domain == VIR_FROM_RPC ? Errc::kUnavailable : Errc::kIo;
  }
}

/// libvirt hands on what QEMU printed, line feeds and all.
std::string one_sentence(const char* message) {
  constexpr std::string_view kNoise = "internal error: ";
  std::string_view rest = message == nullptr ? "libvirt gave no reason" : message;
  if (rest.starts_with(kNoise)) rest.remove_prefix(kNoise.size());
  std::string sentence;
  for (const char c : rest.substr(0, kSentenceSizeMax)) {
    const bool is_space = static_cast<unsigned char>(c) <= ' ';
    if (is_space && (sentence.empty() || sentence.back() == ' ')) continue;
    sentence.push_back(is_space ? ' ' : c);
  }
  while (!sentence.empty() && sentence.back() == ' ') sentence.pop_back();
  return sentence;
}

/// Runs libvirt's event loop until the process ends.
class EventLoop {
 public:
  static Result<void> start() {
    static const EventLoop loop;
    if (!loop.is_running_) return fail(Errc::kIo, "libvirt's event loop does not start");
    return {};
  }

 private:
  EventLoop() {
    // libvirt's default handler prints every error on stderr; ours go through Result.
    virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
    is_running_ = virInitialize() == 0 && virEventRegisterDefaultImpl() == 0;
    if (!is_running_) return;
    // Waits for nothing; it is there to be set off when the loop shall look at the stop token.
    waker_ = virEventAddTimeout(
        -1, [](int timer, void*) { virEventUpdateTimeout(timer, -1); }, nullptr, nullptr);
    thread_ = std::jthread([](const std::stop_token& stop) {
      while (!stop.stop_requested() && virEventRunDefaultImpl() == 0) {
      }
    });
  }
  ~EventLoop() {
    thread_.request_stop();
    virEventUpdateTimeout(waker_, 0);
  }
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  bool is_running_ = false;
  int waker_ = -1;
  std::jthread thread_;
};

std::optional<VmEventKind> kind_of(int event, int detail) {
  switch (event) {
    case VIR_DOMAIN_EVENT_STARTED:
      return VmEventKind::kStarted;
    case VIR_DOMAIN_EVENT_STOPPED:
    case VIR_DOMAIN_EVENT_CRASHED:
      return VmEventKind::kStopped;
    case VIR_DOMAIN_EVENT_RESUMED:
      return VmEventKind::kResumed;
    case VIR_DOMAIN_EVENT_SUSPENDED:
      if (detail == VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY ||
          detail == VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED) {
        return VmEventKind::kPostcopy;
      }
      return detail == VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED ? VmEventKind::kPausedForMigration
                                                           : VmEventKind::kPaused;
    default:
      return std::nullopt;
  }
}

}  // namespace

Error libvirt_error() {
  const virErrorPtr error = virGetLastError();
  if (error == nullptr) return {Errc::kIo, one_sentence(nullptr)};
  return {errc_of(*error), one_sentence(error->message)};
}

struct LibvirtConnection::Observer {
  explicit Observer(std::function<void(const VmEvent&)> callback) : on_event(std::move(callback)) {}

  void notify(virDomainPtr domain, int event, int detail) {
    const auto kind = kind_of(event, detail);
    std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
    if (!kind || virDomainGetUUIDString(domain, uuid.data()) != 0) return;
    // Held while the callback runs, so that silence() returns only when it has ended.
    const MutexLock lock(mutex);
    if (on_event) on_event(VmEvent{{uuid.data()}, *kind});
  }

  void silence() {
    const MutexLock lock(mutex);
    on_event = nullptr;
  }

  Mutex mutex;
  std::function<void(const VmEvent&)> on_event GUARDED_BY(mutex);
};

Result<std::unique_ptr<LibvirtConnection>> LibvirtConnection::create(std::string uri) {
  TRY(EventLoop::start());
  auto connection = std::make_unique<LibvirtConnection>(std::move(uri));
  connection->keeper_ = std::jthread(
      [self = connection.get()](const std::stop_token& stop) { self->keep_connected(stop); });
  return connection;
}

LibvirtConnection::~LibvirtConnection() {
  keeper_.request_stop();
  if (keeper_.joinable()) keeper_.join();
  replace_observer(nullptr);
}

Result<LibvirtConnect> LibvirtConnection::get() {
  const MutexLock lock(mutex_);
  if (!connect_ || virConnectIsAlive(connect_.get()) != 1) {
    disconnect();
    TRY(connect());
  }
  virConnectRef(connect_.get());
  return LibvirtConnect(connect_.get());
}

Result<LibvirtDomain> LibvirtConnection::find(const VmId& vm) {
  const auto connect = TRY(get());
  LibvirtDomain domain(virDomainLookupByUUIDString(connect.get(), vm.uuid.c_str()));
  if (!domain) return tl::unexpected(libvirt_error());
  return domain;
}

Result<void> LibvirtConnection::observe(std::function<void(const VmEvent&)> on_event) {
  replace_observer(std::make_shared<Observer>(std::move(on_event)));
  TRY(get());
  return {};
}

void LibvirtConnection::replace_observer(std::shared_ptr<Observer> observer) {
  {
    const MutexLock lock(mutex_);
    // The connection was made without this observer; the next get() makes one with it.
    disconnect();
    observer_.swap(observer);
  }
  // Without the lock, which a callback that is running may need to end.
  if (observer) observer->silence();
}

Result<void> LibvirtConnection::connect() {
  connect_.reset(virConnectOpen(uri_.c_str()));
  if (!connect_) {
    Error error = libvirt_error();
    if (!std::exchange(was_lost_, true)) {
      log_warning("libvirt not reached uri={} reason={}", uri_, error.message());
    }
    return tl::unexpected(Error(Errc::kUnavailable, error.message()).within("libvirt at " + uri_));
  }
  // Drivers that run inside this process know no keep-alive; they cannot fall silent either.
  virConnectSetKeepAlive(connect_.get(), kKeepAliveSeconds, kKeepAliveCount);
  if (std::exchange(was_lost_, false)) log_info("libvirt reached again uri={}", uri_);
  return subscribe();
}

void LibvirtConnection::disconnect() {
  if (subscription_ >= 0) virConnectDomainEventDeregisterAny(connect_.get(), subscription_);
  subscription_ = -1;
  connect_.reset();
}

Result<void> LibvirtConnection::subscribe() {
  if (!observer_ || !connect_ || subscription_ >= 0) return {};
  const virConnectDomainEventCallback deliver = [](virConnectPtr, virDomainPtr domain, int event,
                                                   int detail, void* opaque) {
    (*static_cast<std::shared_ptr<Observer>*>(opaque))->notify(domain, event, detail);
    return 0;
  };
  const auto drop = [](void* opaque) {
    const std::unique_ptr<std::shared_ptr<Observer>> owned(
        static_cast<std::shared_ptr<Observer>*>(opaque));
  };
  // libvirt's API wants the callback of each kind of event cast to one type; by way of void(*)(),
  // which compilers take for "I know".
  const auto generic =
      reinterpret_cast<virConnectDomainEventGenericCallback>(reinterpret_cast<void (*)()>(deliver));
  // libvirt's own reference, dropped when the last event in flight has been delivered.
  auto shared = std::make_unique<std::shared_ptr<Observer>>(observer_);
  subscription_ = virConnectDomainEventRegisterAny(
      connect_.get(), nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE, generic, shared.get(), drop);
  if (subscription_ < 0) return tl::unexpected(libvirt_error());
  static_cast<void>(shared.release());
  return {};
}

void LibvirtConnection::keep_connected(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    bool is_observed = false;
    {
      const MutexLock lock(mutex_);
      is_observed = observer_ != nullptr;
    }
    // A failure has been logged; the next look comes soon.
    if (is_observed) [[maybe_unused]]
      const auto connected = get();
    std::unique_lock lock(mutex_);
    stopping_.wait_for(lock, stop, kLookInterval, [] { return false; });
  }
}

}  // namespace samepage
