#include "migrator/job_watch.h"

#include <condition_variable>
#include <utility>

#include "core/mutex.h"

namespace samepage::migrator {

JobWatch::JobWatch(VmId vm, std::chrono::milliseconds every, Hypervisor& hypervisor)
    : vm_(std::move(vm)), every_(every), hypervisor_(hypervisor) {}

void JobWatch::begin() {
  asking_ = std::jthread([this](const std::stop_token& stop) { ask(stop); });
}

void JobWatch::finish() {
  asking_ = {};
}

void JobWatch::ask(const std::stop_token& stop) {
  Mutex mutex;
  std::condition_variable_any stopped;
  const std::stop_callback wake(stop, [&] {
    const MutexLock lock(mutex);
    stopped.notify_all();
  });
  while (!stop.stop_requested()) {
    const auto job = hypervisor_.migration_progress(vm_);
    if (job) bytes_remaining_ = job->bytes_remaining;
    const MutexLock lock(mutex);
    const Deadline next = std::chrono::steady_clock::now() + every_;
    while (!stop.stop_requested() && std::chrono::steady_clock::now() < next) {
      stopped.wait_until(mutex, next);
    }
  }
}

}  // namespace samepage::migrator
