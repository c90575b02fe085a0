#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>

#include "core/fd.h"
#include "tools/samepaged/disk_record.h"
#include "tools/samepaged/disks.h"

namespace samepage::agent {

/// One disk. What is below the mutex is guarded by it; the list's mutex may be taken under it, not
/// the other way round. (A std::mutex, for the tender passes by a disk that somebody works on.)
struct Disks::Entry {
  DiskRecord record;
  std::filesystem::path folder;
  std::mutex mutex;
  Fd process;  ///< A pidfd.
  bool is_removed = false;
  bool is_moving = false;  ///< A migration of this agent's has it.
  std::uint64_t restarts = 0;
  std::chrono::milliseconds pause{0};
  std::chrono::steady_clock::time_point next_start;
  std::chrono::steady_clock::time_point started;
  std::chrono::steady_clock::time_point
      resume_until;  ///< Its VM may be paused for the process's absence.
};

}  // namespace samepage::agent
