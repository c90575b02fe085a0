#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "core/fd.h"
#include "core/result.h"

namespace samepage::agent {

/// Starts a program in a session of its own, its output in a log that only its owner reads.
/// kIo: it cannot be started.
Result<pid_t> spawn_process(std::vector<std::string> words, const std::string& log);

/// A pidfd; none when there is no such process.
Fd open_process(pid_t pid);

bool has_ended(const Fd& process);

/// Of a process that is this one's child: of an earlier agent's nothing is told.
std::string how_ended(const Fd& process);

/// Somebody listens on a UNIX socket.
bool answers(const std::string& path);

}  // namespace samepage::agent
