#pragma once

#include "core/fd.h"
#include "tools/first-run/first_run.h"

namespace samepage::first_run {

/// The system that this program runs on. Needs root. Cards are those that udev has announced, under
/// the names that it gave them.
class LinuxGuest final : public GuestSystem {
 public:
  LinuxGuest();

  Result<void> reseed(std::string_view secret) override;
  Result<void> set_clock(std::chrono::seconds since_epoch) override;
  Result<void> set_host_name(const std::string& name) override;
  Result<void> run(const std::vector<std::string>& command) override;
  Result<void> wait_for_card() override;
  void pause(std::chrono::seconds time) override;

 private:
  Fd udev_;
};

/// Whether `message`, one of udev's monitor, says that a network card has been added.
bool tells_of_card(std::string_view message);

/// Tells systemd, where it has started this program, that the program is at work (sd_notify(3)).
void notify_systemd();

}  // namespace samepage::first_run
