// The promise under test: flags and the configuration file say the same things, a key that no flag
// has is refused, exit codes are 0, 1 and 2, and a daemon stops when it is told to.

#include "core/program.h"

#include <csignal>
#include <fstream>
#include <vector>

#include <CLI/CLI.hpp>
#include <gtest/gtest.h>
#include <poll.h>

#include "tests/core/temporary_folder.h"

namespace samepage {
namespace {

class ProgramTest : public ::testing::Test {
 protected:
  std::optional<int> parse(Program& program, std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "samepage-test");
    return program.parse(static_cast<int>(arguments.size()), arguments.data());
  }

  std::string write_config(const std::string& text) {
    std::string path = folder_.file("config.toml");
    std::ofstream(path) << text;
    return path;
  }

  TemporaryFolder folder_;
};

Program::Options command() {
  return {.name = "samepage-test", .about = "A test"};
}
Program::Options daemon() {
  return {.name = "samepage-test", .about = "A test", .kind = Program::Kind::kDaemon};
}

TEST_F(ProgramTest, TakesAKeyFromTheFileAndLetsTheFlagWin) {
  const std::string config = write_config("memory-max = 7\nname = \"from file\"\n");
  Program program(command());
  int memory_max = 0;
  std::string name;
  program.flags().add_option("--memory-max", memory_max);
  program.flags().add_option("--name", name);

  ASSERT_EQ(parse(program, {"--config", config.c_str(), "--name", "from flag"}), std::nullopt);

  EXPECT_EQ(memory_max, 7);
  EXPECT_EQ(name, "from flag");
}

TEST_F(ProgramTest, RefusesAKeyThatNoFlagHas) {
  const std::string config = write_config("memroy-max = 7\n");
  Program program(command());
  int memory_max = 0;
  program.flags().add_option("--memory-max", memory_max);

  EXPECT_EQ(parse(program, {"--config", config.c_str()}), 2);
}

TEST_F(ProgramTest, RefusesAMissingFileThatWasAskedFor) {
  Program program(command());
  EXPECT_EQ(parse(program, {"--config", folder_.file("absent").c_str()}), 2);
}

TEST_F(ProgramTest, ReadsItsDefaultFileOnlyWhenItExists) {
  Program::Options options = command();
  options.config_file = folder_.file("config.toml");
  int memory_max = 1;
  {
    Program without(options);
    without.flags().add_option("--memory-max", memory_max);
    ASSERT_EQ(parse(without, {}), std::nullopt);
    EXPECT_EQ(memory_max, 1);
  }
  write_config("memory-max = 9\n");
  Program with(options);
  with.flags().add_option("--memory-max", memory_max);

  ASSERT_EQ(parse(with, {}), std::nullopt);

  EXPECT_EQ(memory_max, 9);
}

TEST_F(ProgramTest, EndsWithZeroAfterHelpAndVersionAndTwoAfterWrongUsage) {
  for (const auto& [flag, code] : {std::pair{"--help", 0}, {"--version", 0}, {"--nonsense", 2}}) {
    Program program(command());
    EXPECT_EQ(parse(program, {flag}), code) << flag;
  }
}

TEST_F(ProgramTest, SaysWhatFailed) {
  Program program(command());
  ASSERT_EQ(parse(program, {}), std::nullopt);

  EXPECT_EQ(program.run([]() -> Result<void> { return {}; }), 0);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(program.run([]() -> Result<void> { return fail(Errc::kNotFound, "no VM web9"); }), 1);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "samepage-test: no VM web9\n");
}

TEST_F(ProgramTest, TurnsAnExceptionIntoAFailure) {
  Program program(command());
  EXPECT_EQ(program.run([]() -> Result<void> { throw std::runtime_error("boom"); }), 1);
}

TEST_F(ProgramTest, ADaemonLogsItsConfigurationAndStopsWhenTold) {
  Program program(daemon());
  int memory_max = 5;
  program.flags().add_option("--memory-max", memory_max)->capture_default_str();
  ::testing::internal::CaptureStderr();

  ASSERT_EQ(parse(program, {"--log-level", "info"}), std::nullopt);

  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("memory-max=5"), std::string::npos) << log;
  pollfd watched{program.stop_descriptor(), POLLIN, 0};
  EXPECT_EQ(::poll(&watched, 1, 0), 0);
  ASSERT_EQ(::raise(SIGTERM), 0);
  program.wait_for_stop();
  EXPECT_EQ(::poll(&watched, 1, 0), 1);
  int taken = 0;
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigwait(&pending, &taken), 0);
}

TEST_F(ProgramTest, ADaemonRefusesAnUnknownLogLevel) {
  Program program(daemon());
  EXPECT_EQ(parse(program, {"--log-level", "loud"}), 2);
}

}  // namespace
}  // namespace samepage
