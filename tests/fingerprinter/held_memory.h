#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include <sys/types.h>

#include "core/fd.h"
#include "core/hypervisor.h"
#include "core/page.h"

namespace samepage::fingerprinter {

enum class Holding : std::uint8_t { kPrivate, kMemfd, kPrivateFile };

/// A child process in the place of QEMU, with one mapping in the place of guest RAM. It does what
/// it is told and waits; the destructor ends it.
class HeldMemory {
 public:
  using Action = std::function<void(std::byte* ram)>;

  /// `prepare` and later `action` run in the child; actions are chosen by on().
  HeldMemory(Holding holding, std::uint64_t pages, const Action& prepare,
             const Action& action = {});
  ~HeldMemory();
  HeldMemory(const HeldMemory&) = delete;
  HeldMemory& operator=(const HeldMemory&) = delete;

  /// Has the child run `action` and returns when it is done.
  void act();

  /// Kills the child and waits until it is gone.
  void end();

  VmInfo vm() const;
  pid_t pid() const { return pid_; }

  /// The file behind the RAM; empty for kPrivate.
  const Fd& file() const { return file_; }

 private:
  std::uint64_t bytes_;
  Fd file_;
  Fd control_;
  pid_t pid_ = -1;
};

/// Pages that the process has in its page table, of the mapping of `bytes` bytes.
std::uint64_t present_pages(const VmInfo& vm);

/// Writes a page that follows from `content`.
void write_page(std::byte* ram, std::uint64_t page, std::uint64_t content);

}  // namespace samepage::fingerprinter
