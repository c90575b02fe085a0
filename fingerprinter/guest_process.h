#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "core/fd.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// One line of /proc/PID/maps.
struct Mapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  bool writable = false;
  bool executable = false;
  bool shared = false;
  std::uint64_t offset = 0;  ///< In the file.
  std::string device;        ///< "fe:00"; with `inode`, the file's identity.
  std::uint64_t inode = 0;   ///< 0: anonymous memory.
};

/// The mappings in the text of a maps file; lines that are no mapping are left out.
std::vector<Mapping> parse_maps(std::string_view maps);

/// Where a guest's RAM lies in its QEMU process.
struct RamBlock {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  Mapping first;  ///< The kernel may have split the block into several mappings; the first of them.

  bool file_backed() const { return first.inode != 0; }
};

/// A guest's RAM may be so much larger than libvirt speaks of, but for a byte: libvirt speaks of
/// whole MiB, and who starts QEMU by a script of his own may give it a little more.
inline constexpr std::uint64_t kRamBytesMore = 256 << 10;

/// The one RAM block of `bytes` or, when there is none, of less than kRamBytesMore more: adjoining
/// writable mappings of one kind, a single mapping being preferred. kNotFound: there is none, or
/// there are several that cannot be told apart.
Result<RamBlock> find_ram(const std::vector<Mapping>& mappings, std::uint64_t bytes);

/// A process that is looked at from outside and may end at any time.
///
/// Invariant: pinned by descriptors, not by its number: whatever is read through it while alive()
/// is true *afterwards* came from this process and from no later one with the same PID.
/// Threads: const methods may run at the same time.
class GuestProcess {
 public:
  /// kNotFound: no such process. kIo: it may not be looked at (ptrace access is needed).
  static Result<GuestProcess> open(pid_t pid);

  bool alive() const;
  pid_t pid() const { return pid_; }

  /// Stays this process's, whatever becomes of its number.
  const Fd& pidfd() const { return pidfd_; }

  /// /proc/PID/pagemap, open for reading.
  const Fd& pagemap() const { return pagemap_; }

  /// kNotFound: the process has ended. kIo: its maps cannot be read.
  Result<std::vector<Mapping>> mappings() const;

  /// The VmFlags of the mapping that begins at `start`, two letters each, as in /proc/PID/smaps.
  /// kNotFound: the process has ended. kIo: there is no such mapping, or it cannot be read.
  Result<std::string> mapping_flags(std::uint64_t start) const;

  /// Opens /proc/PID/mem for reading. kNotFound: the process has ended. kIo: the kernel refused.
  Result<Fd> open_memory() const;

  /// Opens the file behind a mapping anew, read-only. kNotFound: the process has ended.
  /// kIo: the kernel refused.
  Result<Fd> open_file(const Mapping& mapping) const;

  /// Has the kernel forget which pages of the process were written. kNotFound: the process has
  /// ended. kIo: the kernel refused.
  Result<void> clear_soft_dirty() const;

  /// kNotFound when the process has ended, otherwise kIo with `message`.
  Error blame(const std::string& message) const;

 private:
  Result<std::string> read_text(const char* name) const;

  GuestProcess(pid_t pid, Fd pidfd, Fd folder, Fd pagemap);

  pid_t pid_;
  Fd pidfd_;
  Fd folder_;
  Fd pagemap_;
};

}  // namespace samepage::fingerprinter
