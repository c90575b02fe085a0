#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

#include <sched.h>
#include <sys/mount.h>

namespace samepage::imagestore {

/// A file system of few bytes at a folder, seen by this process alone, for what happens when it is
/// full. Needs root. Lifetime: made before the test's first thread; files in it are closed before.
class SmallDisk {
 public:
  SmallDisk(std::filesystem::path folder, std::uint64_t bytes) : folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
    const bool is_apart = ::unshare(CLONE_NEWNS) == 0 &&
                          ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    if (!is_apart || ::mount("small", folder_.c_str(), "tmpfs", 0, size(bytes).c_str()) != 0) {
      throw std::runtime_error("a file system cannot be mounted; the test needs root");
    }
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() { ::umount2(folder_.c_str(), MNT_DETACH); }

  /// As an administrator does who was told.
  bool resize(std::uint64_t bytes) const {
    return ::mount("small", folder_.c_str(), "tmpfs", MS_REMOUNT, size(bytes).c_str()) == 0;
  }

 private:
  static std::string size(std::uint64_t bytes) { return "size=" + std::to_string(bytes); }

  const std::filesystem::path folder_;
};

}  // namespace samepage::imagestore
