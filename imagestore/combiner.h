#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

namespace samepage::imagestore {

/// Jobs of many threads, of which whoever comes first does all that are waiting (flat combining,
/// Hendler et al. 2010): what costs the same for one as for many, a flush or a transaction, is paid
/// once.
///
/// Invariant: a job is in exactly one call of `together`, which begins after its run() did.
/// Threads: any.
template <class Job>
class Combiner {
 public:
  /// Returns when `job` was done. `together` takes a span of pointers to jobs.
  template <class Together>
  void run(Job& job, const Together& together) {
    std::unique_lock lock(mutex_);
    bool is_done = false;
    waiting_.push_back({.job = &job, .is_done = &is_done});
    while (!is_done) {
      if (is_busy_) {
        ended_.wait(lock);
        continue;
      }
      is_busy_ = true;
      const auto taken = std::exchange(waiting_, {});
      lock.unlock();
      std::vector<Job*> jobs;
      jobs.reserve(taken.size());
      for (const Waiting& one : taken) jobs.push_back(one.job);
      together(std::span<Job* const>(jobs));
      lock.lock();
      for (const Waiting& one : taken) *one.is_done = true;
      is_busy_ = false;
      ended_.notify_all();
    }
  }

 private:
  struct Waiting {
    Job* job = nullptr;
    bool* is_done = nullptr;
  };

  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<Waiting> waiting_;
  bool is_busy_ = false;
};

/// The one T that this process has for `name`, made when the first asks and gone with the last. A
/// child of fork() has its own.
template <class T>
std::shared_ptr<T> shared_in_process(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::pair<pid_t, std::string>, std::weak_ptr<T>> all;
  const std::lock_guard lock(mutex);
  auto& known = all[{::getpid(), name}];
  auto shared = known.lock();
  if (shared == nullptr) known = shared = std::make_shared<T>();
  return shared;
}

}  // namespace samepage::imagestore
