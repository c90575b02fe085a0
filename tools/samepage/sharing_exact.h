#pragma once

#include <span>
#include <string>

#include "core/result.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// What the guests of these raw RAM images would share on one host: exactly, and without a placer.
/// kIo, kInvalid: an image cannot be read.
Result<void> show_exact_sharing(std::span<const std::string> files, Session& session);

}  // namespace samepage::cli
