#include "core/log.h"

#include <array>
#include <iterator>
#include <memory>
#include <string>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace samepage {
namespace {

constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warning", "error"};
constexpr std::array kSpdlogLevels = {spdlog::level::debug, spdlog::level::info,
                                      spdlog::level::warn, spdlog::level::err};

spdlog::level::level_enum spdlog_level(LogLevel level) {
  return kSpdlogLevels.at(static_cast<std::size_t>(level));
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("samepage",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *instance;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

std::string one_line(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  for (const char c : text) {
    if (is_control(c)) {
      fmt::format_to(std::back_inserter(line), "\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line.push_back(c);
    }
  }
  return line;
}

}  // namespace

Result<void> set_up_log(std::string_view level) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames.at(i) != level) continue;
    logger().set_level(kSpdlogLevels.at(i));
    return {};
  }
  return fail(Errc::kInvalid, fmt::format("no log level is called {}: use debug, info, warning or "
                                          "error",
                                          level));
}

void log_line(LogLevel level, fmt::string_view format, fmt::format_args arguments) {
  const auto spdlog_value = spdlog_level(level);
  if (!logger().should_log(spdlog_value)) return;
  logger().log(spdlog_value, one_line(fmt::vformat(format, arguments)));
}

}  // namespace samepage
