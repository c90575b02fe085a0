#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/mutex.h"

namespace samepage::imagestore {

/// Threads that run jobs which take values and return values; results are fetched in any order.
/// The caller bounds how many jobs wait, by fetching results before it adds more.
///
/// Threads: submit() from one thread. Lifetime: jobs that have not begun are dropped by the
/// destructor, which waits for those that have.
class WorkerPool final {
 public:
  WorkerPool(const std::string& name, unsigned threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  template <class Job>
  std::future<std::invoke_result_t<Job>> submit(Job job) {
    // std::function wants copies, and a task cannot be copied.
    auto task = std::make_shared<std::packaged_task<std::invoke_result_t<Job>()>>(std::move(job));
    auto result = task->get_future();
    add([task] { (*task)(); });
    return result;
  }

 private:
  void add(std::function<void()> job);
  void work(const std::stop_token& stop);

  Mutex mutex_;
  std::condition_variable_any added_;
  std::deque<std::function<void()>> jobs_ GUARDED_BY(mutex_);
  std::vector<std::jthread> threads_;
};

}  // namespace samepage::imagestore
