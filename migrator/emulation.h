#pragma once

#include <string>

#include <sys/types.h>

namespace samepage::migrator {

/// Whether QEMU emulates this guest's processors (TCG) and does not run them under KVM: seen from
/// the names that it gives their threads. False when the process is gone.
/// `proc` is where procfs is mounted.
bool is_emulated(pid_t qemu, const std::string& proc = "/proc");

}  // namespace samepage::migrator
