// The step that makes a VM which was forked from a template somebody of its own. It runs inside the
// guest, so it is one static program that needs nothing there. docs/guest.md.

#include <cstdio>
#include <string_view>

#include "tools/first-run/linux_guest.h"

int main(int argc, char** argv) {
  using namespace samepage::first_run;
  const bool stays = argc == 2 && std::string_view(argv[1]) == "--stay";
  if (argc > 1 && !stays) {
    std::fprintf(stderr, "usage: first-run [--stay]\n");
    return 2;
  }
  LinuxGuest guest;
  FirstRun step("/", guest);
  const auto done = stays ? step.stay(notify_systemd) : step.run();
  if (!done) std::fprintf(stderr, "samepage: %s\n", done.error().message().c_str());
  return done ? 0 : 1;
}
