#include "core/task_queue.h"

#include <utility>

#include <pthread.h>

namespace samepage {

TaskQueue::TaskQueue(const std::string& name, std::size_t tasks_max)
    : tasks_max_(tasks_max), thread_([this](const std::stop_token& stop) { run(stop); }) {
  // The kernel keeps 15 characters.
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

TaskQueue::~TaskQueue() {
  stop();
}

void TaskQueue::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    tasks_.clear();
  }
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

bool TaskQueue::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || tasks_.size() >= tasks_max_) return false;
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

std::function<void()> TaskQueue::take(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, stop, [this] { return !tasks_.empty(); })) return {};
  if (stop.stop_requested()) return {};
  std::function<void()> task = std::move(tasks_.front());
  tasks_.pop_front();
  return task;
}

void TaskQueue::run(const std::stop_token& stop) {
  while (const auto task = take(stop)) task();
}

}  // namespace samepage
