#include "tools/samepage/quantity.h"

#include <cmath>
#include <cstdlib>

#include <fmt/core.h>

namespace samepage::cli {
namespace {

constexpr double kMib = 1024.0 * 1024.0;

/// One decimal below ten, none from there on.
std::string brief(double value) {
  const bool whole = std::fabs(value) >= 9.95 || value == 0;
  return whole ? fmt::format("{:.0f}", value) : fmt::format("{:.1f}", value);
}

}  // namespace

std::string show_mib(std::optional<double> mib) {
  return mib ? brief(*mib) + " MiB" : "-";
}

std::string show_bytes_as_mib(std::optional<double> bytes) {
  return bytes ? show_mib(*bytes / kMib) : "-";
}

std::string show_mib_change(std::optional<double> mib) {
  return mib && *mib > 0 ? "+" + show_mib(mib) : show_mib(mib);
}

std::string show_mib_range(std::optional<double> low, std::optional<double> high) {
  return low && high ? brief(*low) + "-" + brief(*high) + " MiB" : "-";
}

std::string show_count(std::optional<double> count) {
  return count ? fmt::format("{:.0f}", *count) : "-";
}

std::string show_ms(std::optional<double> ms) {
  if (!ms) return "-";
  return *ms < 10'000 ? fmt::format("{:.0f} ms", *ms) : fmt::format("{:.1f} s", *ms / 1000);
}

std::string show_age(std::optional<double> seconds) {
  if (!seconds) return "-";
  if (*seconds < 120) return fmt::format("{:.0f} s", *seconds);
  if (*seconds < 7200) return fmt::format("{:.0f} min", *seconds / 60);
  if (*seconds < 172'800) return fmt::format("{:.0f} h", *seconds / 3600);
  return fmt::format("{:.0f} d", *seconds / 86'400);
}

std::string show_percent_change(double ratio) {
  return fmt::format("{:+.1f} %", 100 * ratio);
}

std::string show_share(std::optional<double> part, std::optional<double> whole) {
  return part && whole && *whole > 0 ? fmt::format("{:.0f} %", *part / *whole * 100) : "-";
}

}  // namespace samepage::cli
