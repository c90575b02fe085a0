// samepage: the administrator's command line. Talks HTTP/JSON to the placer (docs/api.md).

#include <algorithm>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/program.h"
#include "tools/samepage/http_client.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {
namespace {

struct GlobalOptions {
  std::string socket = "/run/samepage/placer.sock";
  std::string url;
  std::string token_file;
  bool json = false;
};

void add_global_options(CLI::App& root, GlobalOptions& options) {
  root.require_subcommand(0, 1);  // None at all is main's to refuse, after unknown words.
  root.get_config_ptr()->type_name(kFilePath);
  root.fallthrough();  // `samepage hosts --json` is `samepage --json hosts`.
  CLI::Option* socket = root.add_option("--socket", options.socket, "The placer's UNIX socket")
                            ->envname("SAMEPAGE_SOCKET")
                            ->type_name(kFilePath)
                            ->capture_default_str();
  root.add_option("--url", options.url,
                  "The placer's address, http://HOST:PORT, instead of a socket")
      ->envname("SAMEPAGE_URL")
      ->type_name("URL")
      ->excludes(socket);
  root.add_option("--token-file", options.token_file, "Holds the bearer token that --url needs")
      ->envname("SAMEPAGE_TOKEN_FILE")
      ->type_name(kFilePath);
  root.add_flag("--json", options.json, "Print the placer's JSON instead of tables");
}

/// 0 when `descriptor` is no terminal.
std::size_t terminal_width(int descriptor) {
  winsize size{};
  if (::isatty(descriptor) == 0) return 0;
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

Result<std::string> read_token(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path);
  std::string token;
  if (!std::getline(file, token) || token.empty()) {
    return fail(Errc::kInvalid, "no token could be read from " + path);
  }
  return token;
}

Result<void> run(const CLI::App& root, const Subcommands& subcommands,
                 const GlobalOptions& options) {
  const http::HttpClient placer({.socket_path = options.socket,
                                 .url = options.url,
                                 .token = TRY(read_token(options.token_file))});
  Session session{.placer = placer,
                  .json = options.json,
                  .out = std::cout,
                  .talk = std::cerr,
                  .out_width = terminal_width(STDOUT_FILENO),
                  .talk_width = terminal_width(STDERR_FILENO),
                  .socket_path = options.url.empty() ? options.socket : ""};
  TRY(subcommands.run(root, session));
  if (!std::cout.flush()) return fail(Errc::kIo, "standard output cannot be written");
  return {};
}

}  // namespace
}  // namespace samepage::cli

int main(int argc, char** argv) {
  using namespace samepage::cli;  // NOLINT(google-build-using-namespace): only main's own names.
  samepage::Program program({.name = "samepage",
                             .about = "Share memory between VMs and move them cheaply",
                             .kind = samepage::Program::Kind::kCommand,
                             .config_file = "/etc/samepage/cli.toml"});
  CLI::App& root = program.flags();
  GlobalOptions options;
  add_global_options(root, options);
  Subcommands subcommands;
  for (const auto add :
       {add_hosts,  add_vms,         add_sharing,  add_store,   add_disk,       add_scan,
        add_plan,   add_apply,       add_migrate,  add_drain,   add_rules,      add_policy,
        add_figure, add_model,       add_simulate, add_boot,    add_template,   add_events,
        add_image,  add_image_mount, add_doctor,   add_standby, add_divergence, add_completion}) {
    add(root, subcommands);
  }
  if (const auto code = program.parse(argc, argv)) return *code;
  if (root.get_subcommands().empty()) {
    std::cerr << root.help();
    return 2;
  }
  return program.run([&] { return run(root, subcommands, options); });
}
