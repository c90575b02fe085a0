#include "imagestore/worker_pool.h"

#include <pthread.h>

namespace samepage::imagestore {

WorkerPool::WorkerPool(const std::string& name, unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) {
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
    pthread_setname_np(threads_.back().native_handle(), name.substr(0, 15).c_str());
  }
}

WorkerPool::~WorkerPool() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
}

void WorkerPool::add(std::function<void()> job) {
  const MutexLock lock(mutex_);
  jobs_.push_back(std::move(job));
  added_.notify_one();
}

void WorkerPool::work(const std::stop_token& stop) {
  while (true) {
    std::function<void()> job;
    mutex_.lock();
    const bool found =
        added_.wait(mutex_, stop, [this]() REQUIRES(mutex_) { return !jobs_.empty(); });
    if (found && !stop.stop_requested()) {
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    mutex_.unlock();
    if (!job) return;
    job();
  }
}

}  // namespace samepage::imagestore
