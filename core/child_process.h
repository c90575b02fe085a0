#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"

namespace samepage {

/// Starts a program, found on PATH, beside this one: with its terminal and its signals. kIo: it
/// cannot be started.
Result<pid_t> spawn_process(std::vector<std::string> words);

/// Starts a program that outlives this one: in a session of its own, with its output in a log that
/// only its owner reads. kIo: it cannot be started.
Result<pid_t> spawn_daemon(std::vector<std::string> words, const std::string& log);

/// A pidfd; none when there is no such process.
Fd open_process(pid_t pid);

bool has_ended(const Fd& process);

/// Of a process that is this one's child: of others nothing is told.
std::string how_ended(const Fd& process);

/// Waits for a child and takes its end: true when it ended with 0. At the deadline it is killed.
bool ends_well(pid_t child, Deadline deadline);

}  // namespace samepage
