#pragma once

#include <string>

#include "tools/samepage/boot_messages.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// Prints where each VM went and why, or, with --json, what the placer answered.
void print_storm(const Storm& storm, const std::string& json, Session& session);

/// Shows how a boot storm goes on, and prints it when it has ended. Ctrl-C leaves out what has not
/// begun; a second one leaves the rest to the placer. kUnavailable: not every VM was booted.
Result<void> follow_storm(const std::string& id, Session& session);

}  // namespace samepage::cli
