#pragma once

#include "tools/first-run/first_run.h"

namespace samepage::first_run {

/// The system that this program runs on. Needs root.
class LinuxGuest final : public GuestSystem {
 public:
  Result<void> reseed(std::string_view secret) override;
  Result<void> set_clock(std::chrono::seconds since_epoch) override;
  Result<void> set_host_name(const std::string& name) override;
  Result<void> run(const std::vector<std::string>& command) override;
};

}  // namespace samepage::first_run
