#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace samepage {

/// A named thread that runs posted tasks one after the other.
///
/// Threads: post() from any thread. Tasks may post. The destructor stops
/// it.
class TaskQueue {
 public:
  TaskQueue(const std::string& name, std::size_t tasks_max);
  ~TaskQueue();
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  /// False when `tasks_max` tasks wait already, or after stop(): the caller refuses the work.
  [[nodiscard]] bool post(std::function<void()> task);

  /// Lets the running task end, drops the waiting ones and joins. Not from a task.
  void stop();

 private:
  /// Empty: it is time to stop.
  std::function<void()> take(const std::stop_token& stop);
  void run(const std::stop_token& stop);

  const std::size_t tasks_max_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::jthread thread_;
};

}  // namespace samepage
