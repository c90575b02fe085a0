#pragma once

#include <cstdint>
#include <string>

namespace samepage::control {

/// The placer's configuration; docs/man/samepage-placer.8 describes each.
struct Options {
  std::string bind = "tcp://127.0.0.1:7420";
  std::string socket = "/run/samepage/placer.sock";
  std::string http;
  std::string token_file;
  std::string state_dir = "/var/lib/samepage";
  std::uint32_t report_interval_s = 60;
  std::string fence_command;
  std::uint32_t fence_after_s = 30;
};

}  // namespace samepage::control
