#include "core/program.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <system_error>
#include <utility>

#include <CLI/CLI.hpp>
#include <poll.h>
#include <sys/signalfd.h>

#include "core/log.h"
#include "core/version.h"

namespace samepage {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;

}  // namespace

Program::Program(Options options)
    : options_(std::move(options)),
      app_(std::make_unique<CLI::App>(options_.about, options_.name)) {
  app_->set_version_flag("--version", options_.name + " " + kVersion);
  app_->set_config("--config", options_.config_file, "Read options from this TOML file");
  app_->allow_config_extras(CLI::config_extras_mode::error);
  if (options_.kind != Kind::kDaemon) return;
  app_->add_option("--log-level", log_level_, "Which log lines to write, at least")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
}

Program::~Program() = default;

CLI::App& Program::flags() {
  return *app_;
}

std::optional<int> Program::parse(int argc, const char* const* argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ConfigError& error) {
    // CLI11 calls every configuration an INI, and an unknown key one that it cannot parse.
    std::fprintf(stderr, "%s: wrong configuration file: no such option, or a wrong value (%s)\n",
                 options_.name.c_str(), error.what());
    return kUsage;
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? kDone : kUsage;
  }
  if (options_.kind != Kind::kDaemon) return std::nullopt;

  const auto log_ready = set_up_log(log_level_);
  const auto signals_taken = take_over_signals();
  for (const auto& step : {std::cref(log_ready), std::cref(signals_taken)}) {
    if (step.get()) continue;
    log_error("{} cannot start: {}", options_.name, step.get().error().message());
    return kFailed;
  }
  log_configuration();
  return std::nullopt;
}

int Program::run(const std::function<Result<void>()>& work) {
  std::string failure;
  try {
    const auto done = work();
    if (done) return kDone;
    failure = done.error().message();
  } catch (const std::exception& error) {
    failure = std::string("unexpected: ") + error.what();
  }
  if (options_.kind == Kind::kDaemon) {
    log_error("{} stopped: {}", options_.name, failure);
  } else {
    std::fprintf(stderr, "%s: %s\n", options_.name.c_str(), failure.c_str());
  }
  return kFailed;
}

Result<void> Program::take_over_signals() {
  sigset_t stop{};
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  const int blocked = pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  if (blocked != 0) {
    return fail(Errc::kIo, "block signals: " + std::generic_category().message(blocked));
  }
  stop_signals_ = Fd(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!stop_signals_) {
    return fail(Errc::kIo, "signalfd: " + std::generic_category().message(errno));
  }
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  return {};
}

void Program::wait_for_stop() const {
  pollfd watched{stop_signals_.get(), POLLIN, 0};
  while (::poll(&watched, 1, -1) < 0 && errno == EINTR) {
  }
}

void Program::log_configuration() const {
  log_info("{} {} started", options_.name, kVersion);
  const std::string configuration = app_->config_to_str(true, false);
  std::size_t begin = 0;
  while (begin < configuration.size()) {
    const std::size_t end = std::min(configuration.find('\n', begin), configuration.size());
    const std::string line = configuration.substr(begin, end - begin);
    if (!line.empty()) log_info("option {}", line);
    begin = end + 1;
  }
}

}  // namespace samepage
