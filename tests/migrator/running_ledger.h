#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "core/hypervisor.h"
#include "core/mutex.h"

namespace samepage::migrator {

/// Knows on which hosts each VM's vCPUs run, and remembers whether one ever ran on two.
/// Threads: any.
class RunningLedger {
 public:
  void runs(const std::string& host, const VmId& vm) {
    const MutexLock lock(mutex_);
    hosts_[vm].insert(host);
    if (hosts_[vm].size() > 1) twice_ = true;
  }

  void stops(const std::string& host, const VmId& vm) {
    const MutexLock lock(mutex_);
    hosts_[vm].erase(host);
  }

  std::set<std::string> running_on(const VmId& vm) {
    const MutexLock lock(mutex_);
    return hosts_[vm];
  }

  bool ever_twice() {
    const MutexLock lock(mutex_);
    return twice_;
  }

 private:
  Mutex mutex_;
  std::map<VmId, std::set<std::string>> hosts_ GUARDED_BY(mutex_);
  bool twice_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
