// Programs that are started: how they end is told, those that do not end are killed, and daemons
// have a session and a log of their own.
#include "core/child_process.h"

#include <csignal>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include "tests/core/temporary_folder.h"

namespace samepage {
namespace {

using namespace std::chrono_literals;

Deadline in(std::chrono::milliseconds time) {
  return Deadline::clock::now() + time;
}

TEST(ChildProcessTest, EndsWellOnlyWithZero) {
  EXPECT_TRUE(ends_well(spawn_process({"true"}).value(), in(30s)));
  EXPECT_FALSE(ends_well(spawn_process({"false"}).value(), in(30s)));
}

TEST(ChildProcessTest, IsKilledAtTheDeadline) {
  const auto began = Deadline::clock::now();
  EXPECT_FALSE(ends_well(spawn_process({"sleep", "1000"}).value(), in(20ms)));
  EXPECT_LT(Deadline::clock::now() - began, 30s);
}

TEST(ChildProcessTest, SaysThatThereIsNoSuchProgram) {
  const auto none = spawn_process({"/no/such/program"});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), Errc::kIo);
  EXPECT_NE(none.error().message().find("/no/such/program"), std::string::npos);
}

TEST(ChildProcessTest, ADaemonHasASessionAndALogOfItsOwn) {
  const TemporaryFolder folder;
  const pid_t child =
      spawn_daemon({"sh", "-c", "echo $$ $(ps -o sid= -p $$); echo trouble >&2; kill -TERM $$"},
                   folder.file("log"))
          .value();
  const Fd process = open_process(child);
  ASSERT_TRUE(process);
  EXPECT_FALSE(has_ended(open_process(::getpid())));
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&ended, 1, 30'000), 1);

  EXPECT_TRUE(has_ended(process));
  EXPECT_EQ(how_ended(process), "signal " + std::to_string(SIGTERM));
  std::ifstream log(folder.file("log"));
  pid_t own = 0;
  pid_t session = 0;
  std::string said;
  log >> own >> session >> said;
  EXPECT_EQ(own, child);
  EXPECT_EQ(session, child);
  EXPECT_EQ(said, "trouble");
}

}  // namespace
}  // namespace samepage
