#include "tools/samepage/progress_bar.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

constexpr std::size_t kBarMax = 30;
constexpr const char* kEraseLine = "\r\033[K";

}  // namespace

void ProgressBar::show(std::string_view label, double fraction, std::string_view detail) {
  if (width_ == 0) return;
  std::string line = progress_line(label, fraction, detail, width_ - 1);
  if (line == line_) return;
  line_ = std::move(line);
  out_ << kEraseLine << line_ << std::flush;
}

void ProgressBar::say(std::string_view sentence) {
  const std::string line = line_;
  clear();
  out_ << printable(sentence) << '\n' << line << std::flush;
  line_ = line;
}

void ProgressBar::clear() {
  if (!line_.empty()) out_ << kEraseLine << std::flush;
  line_.clear();
}

std::string progress_line(std::string_view label, double fraction, std::string_view detail,
                          std::size_t width) {
  const double part = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  const std::string name = printable(label);
  const std::string tail = fmt::format(" {:3.0f} %  {}", std::floor(part * 100), printable(detail));
  const std::size_t taken = display_width(name) + display_width(tail) + 3;
  const std::size_t bar = taken < width ? std::min(kBarMax, width - taken) : 0;
  const auto full = static_cast<std::size_t>(part * static_cast<double>(bar));
  std::string line =
      bar == 0 ? name + tail
               : name + " [" + std::string(full, '#') + std::string(bar - full, '-') + "]" + tail;
  // Names may be longer than a terminal is wide: cut bytes until the characters fit.
  while (display_width(line) > width) line.pop_back();
  return line;
}

}  // namespace samepage::cli
