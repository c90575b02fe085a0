#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "tools/samepage/http_client.h"

namespace CLI {
class App;
}  // namespace CLI

namespace samepage::cli {

/// What a subcommand works with. Data goes to `out`, talk to `talk`.
struct Session {
  const http::HttpClient& placer;
  bool json = false;  ///< Data as the API's JSON instead of text for people.
  std::ostream& out;
  std::ostream& talk;
  std::size_t out_width = 0;   ///< Characters a line of `out`; 0 when it is no terminal.
  std::size_t talk_width = 0;  ///< The same of `talk`.
  std::string socket_path;     ///< Of the placer on this host; empty when it is asked by URL.
};

using Action = std::function<Result<void>(Session&)>;

/// The subcommands of `samepage` and what each of them does.
class Subcommands {
 public:
  /// Adds `name` below `parent`; its options are added to the result.
  CLI::App& add(CLI::App& parent, const std::string& name, const std::string& about, Action action);

  /// Does what the innermost subcommand that was parsed says.
  Result<void> run(const CLI::App& root, Session& session) const;

 private:
  struct Entry {
    const CLI::App* app;
    Action action;
  };
  std::vector<Entry> entries_;
};

// One source file each.
void add_apply(CLI::App& root, Subcommands& subcommands);
void add_boot(CLI::App& root, Subcommands& subcommands);
void add_completion(CLI::App& root, Subcommands& subcommands);
void add_drain(CLI::App& root, Subcommands& subcommands);  // and `undrain`
void add_divergence(CLI::App& root, Subcommands& subcommands);
void add_disk(CLI::App& root, Subcommands& subcommands);
void add_doctor(CLI::App& root, Subcommands& subcommands);
void add_events(CLI::App& root, Subcommands& subcommands);
void add_figure(CLI::App& root, Subcommands& subcommands);
void add_hosts(CLI::App& root, Subcommands& subcommands);
void add_image(CLI::App& root, Subcommands& subcommands);
void add_image_mount(CLI::App& root, Subcommands& subcommands);  // After add_image().
void add_migrate(CLI::App& root, Subcommands& subcommands);
void add_model(CLI::App& root, Subcommands& subcommands);
void add_plan(CLI::App& root, Subcommands& subcommands);
void add_policy(CLI::App& root, Subcommands& subcommands);
void add_rules(CLI::App& root, Subcommands& subcommands);
void add_scan(CLI::App& root, Subcommands& subcommands);
void add_sharing(CLI::App& root, Subcommands& subcommands);
void add_simulate(CLI::App& root, Subcommands& subcommands);
void add_standby(CLI::App& root, Subcommands& subcommands);
void add_store(CLI::App& root, Subcommands& subcommands);
void add_template(CLI::App& root, Subcommands& subcommands);
void add_vms(CLI::App& root, Subcommands& subcommands);

// Option values that shell completion knows how to complete: the type names of options.
inline constexpr const char* kHostName = "HOST";
inline constexpr const char* kVmName = "VM";
inline constexpr const char* kTemplateName = "TEMPLATE";
inline constexpr const char* kPlanId = "PLAN-ID";
inline constexpr const char* kFilePath = "FILE";
inline constexpr const char* kImageName = "IMAGE";

/// By when the placer answers what it knows already.
inline Deadline answer_deadline() {
  return Deadline::clock::now() + std::chrono::seconds(30);
}

/// By when it answers what takes the agents' work; longer than the placer itself gives up.
inline Deadline work_deadline() {
  return Deadline::clock::now() + std::chrono::seconds(150);
}

}  // namespace samepage::cli
