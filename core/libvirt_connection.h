#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include <libvirt/libvirt.h>

#include "core/handle.h"
#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/result.h"

namespace samepage {

using LibvirtConnect = Handle<virConnect, virConnectClose>;
using LibvirtDomain = Handle<virDomain, virDomainFree>;

/// libvirt's last error on this thread as one sentence and the reaction it calls for.
Error libvirt_error();

/// A connection to libvirtd that is made when it is first needed and made again after libvirtd was
/// restarted, and the life-cycle events that come over it. Internal to the hypervisor.
///
/// libvirt delivers events from its event loop, one thread for the process, started by the first
/// object and never stopped before the process ends. A second thread of this object's own sees to
/// it that an observer's connection comes back without anybody asking.
/// Threads: any. Lifetime: no event is delivered after the destructor, which must not run in one.
class LibvirtConnection {
 public:
  /// kIo: the event loop cannot be started.
  static Result<std::unique_ptr<LibvirtConnection>> create(std::string uri);
  explicit LibvirtConnection(std::string uri) : uri_(std::move(uri)) {}
  LibvirtConnection(const LibvirtConnection&) = delete;
  LibvirtConnection& operator=(const LibvirtConnection&) = delete;
  ~LibvirtConnection();

  /// A reference of the caller's own to a connection that was alive just now.
  /// kUnavailable: libvirtd cannot be reached.
  Result<LibvirtConnect> get();

  /// kNotFound: no VM, active or not, has this UUID.
  Result<LibvirtDomain> find(const VmId& vm);

  /// Starts the events. Errors as get(); after one the observer is set all the same and hears of
  /// events as soon as libvirtd can be reached.
  Result<void> observe(std::function<void(const VmEvent&)> on_event);

 private:
  struct Observer;

  void replace_observer(std::shared_ptr<Observer> observer);
  Result<void> connect() REQUIRES(mutex_);
  void disconnect() REQUIRES(mutex_);
  Result<void> subscribe() REQUIRES(mutex_);
  void keep_connected(const std::stop_token& stop);

  const std::string uri_;
  Mutex mutex_;
  LibvirtConnect connect_ GUARDED_BY(mutex_);
  std::shared_ptr<Observer> observer_ GUARDED_BY(mutex_);
  int subscription_ GUARDED_BY(mutex_) = -1;
  bool was_lost_ GUARDED_BY(mutex_) = false;
  std::condition_variable_any stopping_;
  std::jthread keeper_;
};

}  // namespace samepage
