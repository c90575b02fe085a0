#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace samepage::cli {

// Numbers as people read them; JSON output has them exact. What is not known is "-".

/// "0 MiB", "3.4 MiB", "512 MiB"; never another unit, so that columns compare.
std::string show_mib(std::optional<double> mib);
std::string show_bytes_as_mib(std::optional<double> bytes);

/// "+34 MiB", "-3.4 MiB": a change.
std::string show_mib_change(std::optional<double> mib);

/// "203-221 MiB".
std::string show_mib_range(std::optional<double> low, std::optional<double> high);

std::string show_count(std::optional<double> count);

/// "213 ms", "12.4 s".
std::string show_ms(std::optional<double> ms);

/// "4 s", "12 min", "3 h", "5 d".
std::string show_age(std::optional<double> seconds);

/// "87 %" of `whole`; "-" when the whole is nothing.
std::string show_share(std::optional<double> part, std::optional<double> whole);

/// "+2.4 %", "-0.3 %" of a ratio.
std::string show_percent_change(double ratio);

}  // namespace samepage::cli
