// samepage-placer: one per fleet. docs/man/samepage-placer.8 is its reference.

#include <fstream>

#include <CLI/CLI.hpp>

#include "core/clock.h"
#include "core/program.h"
#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/options.h"
#include "tools/samepage-placer/placer.h"

namespace samepage::control {
namespace {

void add_flags(CLI::App& flags, Options& options) {
  flags.option_defaults()->always_capture_default();
  flags.add_option("--bind", options.bind, "Where agents connect, as tcp://ADDRESS:PORT");
  flags.add_option("--socket", options.socket, "The API's UNIX socket");
  flags.add_option("--http", options.http, "Serve the API on ADDRESS:PORT too");
  flags.add_option("--token-file", options.token_file, "Holds the bearer token for --http");
  flags.add_option("--state-dir", options.state_dir, "Journal, keys and secrets");
  flags
      .add_option("--report-interval-s", options.report_interval_s,
                  "How often agents scan and report, in seconds")
      ->check(CLI::Range(1U, 86'400U));
  flags.add_option("--fence-command", options.fence_command,
                   "A program that switches off the host it is given; 0 is that it is off, and "
                   "standbys of its VMs wake");
  flags
      .add_option("--fence-after-s", options.fence_after_s,
                  "How long a host is down before it is switched off, in seconds")
      ->check(CLI::Range(1U, 86'400U));
}

Result<std::unique_ptr<http::HttpServer>> serve_tcp(const Options& options, Placer& placer) {
  if (options.http.empty()) return std::unique_ptr<http::HttpServer>();
  http::Options server;
  server.tcp_address = options.http;
  std::ifstream file(options.token_file);
  if (!(file >> server.token)) {
    return fail(Errc::kInvalid, "--http needs --token-file, a file that holds the bearer token");
  }
  return http::HttpServer::create(server, api_routes(placer));
}

Result<void> run(const Options& options, const Program& program) {
  const SystemClock clock;
  const auto placer = TRY(Placer::create(options, clock));
  http::Options local;
  local.socket_path = options.socket;
  const auto server = TRY(http::HttpServer::create(local, api_routes(*placer)));
  const auto tcp_server = TRY(serve_tcp(options, *placer));
  program.wait_for_stop();
  return {};
}

}  // namespace
}  // namespace samepage::control

// Flags that contradict each other are a bug, and end the program by their exception.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  samepage::Program program({.name = "samepage-placer",
                             .about = "Decides which VM should run on which host",
                             .kind = samepage::Program::Kind::kDaemon,
                             .config_file = "/etc/samepage/samepage-placer.toml"});
  samepage::control::Options options;
  samepage::control::add_flags(program.flags(), options);
  if (const auto code = program.parse(argc, argv)) return *code;
  return program.run([&] { return samepage::control::run(options, program); });
}
