#pragma once

#include <cstdint>
#include <string_view>

#include <fmt/core.h>

#include "core/result.h"

namespace samepage {

/// The daemons' log: one line an event on stderr, past tense, `key=value` with units:
///
///     log_info("migration done vm={} saved_bytes={} downtime_us={}", name, saved, downtime);
///
/// info: a change that an operator would write in a diary; warning: we recovered; error: a request
/// failed; debug: off in production. Log an error once, where it is handled; nothing in hot loops.
/// Control characters of the arguments are escaped, so that a peer cannot forge a line.
/// Threads: any. Before set_up_log() lines of level info and above are written.
enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };

/// Says which lines are written from here on: "debug", "info", "warning" or "error".
/// kInvalid: another word; nothing has changed.
Result<void> set_up_log(std::string_view level);

/// The one sink behind the functions below.
void log_line(LogLevel level, fmt::string_view format, fmt::format_args arguments);

template <class... Arguments>
void log_debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_line(LogLevel::kDebug, format, fmt::make_format_args(arguments...));
}

template <class... Arguments>
void log_info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_line(LogLevel::kInfo, format, fmt::make_format_args(arguments...));
}

template <class... Arguments>
void log_warning(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_line(LogLevel::kWarning, format, fmt::make_format_args(arguments...));
}

template <class... Arguments>
void log_error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_line(LogLevel::kError, format, fmt::make_format_args(arguments...));
}

}  // namespace samepage
