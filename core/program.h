#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name.
class App;
}  // namespace CLI

namespace samepage {

/// What every main of ours does the same way: flags, `--config FILE`, `--version`, exit codes.
///
///     int main(int argc, char** argv) {
///       Program program({.name = "samepaged", .about = "...", .kind = Program::Kind::kDaemon});
///       AgentOptions options;
///       program.flags().add_option("--memory-max", options.memory_max, "...");  // <CLI/CLI.hpp>
///       if (const auto code = program.parse(argc, argv)) return *code;
///       return program.run([&] { return serve(options, program); });
///     }
///
/// Each flag is also a key of the TOML configuration file under the flag's long name; a key that no
/// flag has is refused, for a typo must not be a silent default. Flags win over the file.
/// Exit codes: 0 done, 1 failed, 2 wrong usage.
/// Threads: the main thread's only, wait_for_stop() and stop_descriptor() excepted.
class Program {
 public:
  enum class Kind : std::uint8_t {
    kCommand,  ///< Talks on stderr only when it fails.
    kDaemon,   ///< Has --log-level, logs its effective configuration, stops on SIGTERM and SIGINT.
  };

  struct Options {
    std::string name;
    std::string about;
    Kind kind = Kind::kCommand;
    /// Read when --config is not given and the file exists.
    std::string config_file = {};
  };

  explicit Program(Options options);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();

  /// Where the main adds its flags and subcommands; valid as long as the program.
  CLI::App& flags();

  /// Reads the flags and the configuration file. A value is the exit code with which to end now:
  /// help or version was printed (0), or the usage was wrong and a sentence says how (2).
  /// For a daemon also takes over SIGTERM and SIGINT, so call it before any thread exists, and
  /// ignores SIGPIPE.
  std::optional<int> parse(int argc, const char* const* argv);

  /// Runs the program's work. 0, or 1 after a sentence on stderr (a command) or in the log (a
  /// daemon) has said what failed.
  int run(const std::function<Result<void>()>& work);

  /// A daemon's: readable from the first SIGTERM or SIGINT on; poll it, do not read it. Lent.
  int stop_descriptor() const { return stop_signals_.get(); }

  /// A daemon's: returns at the first SIGTERM or SIGINT. The one wait without a deadline.
  void wait_for_stop() const;

 private:
  Result<void> take_over_signals();
  void log_configuration() const;

  Options options_;
  std::unique_ptr<CLI::App> app_;
  std::string log_level_ = "info";
  Fd stop_signals_;
};

}  // namespace samepage
