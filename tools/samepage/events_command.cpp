#include <memory>

#include <CLI/CLI.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

struct EventsOptions {
  bool follow = false;
  std::uint64_t since = 0;
};

Result<void> print_event(std::string_view line, Session& session) {
  const Event event = TRY(parse_event(line));
  if (session.json) {
    session.out << line << '\n' << std::flush;
  } else if (!event.progress) {
    session.out << event.id << "  " << printable(event.at) << "  " << printable(event.text) << '\n'
                << std::flush;
  }
  return {};
}

Result<void> events(Session& session, const EventsOptions& options) {
  const Interrupts interrupts;
  Result<void> printed;
  const std::string path =
      "/events?since=" + std::to_string(options.since) + "&follow=" + (options.follow ? "1" : "0");
  TRY(session.placer.stream(
      path,
      [&](std::string_view line) {
        if (printed) printed = print_event(line, session);
      },
      [&] { return interrupts.count() == 0 && printed && session.out.good(); },
      options.follow ? Deadline::max() : answer_deadline()));
  return printed;
}

}  // namespace

void add_events(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<EventsOptions>();
  CLI::App& events_command =
      subcommands.add(root, "events", "Print what happened in the fleet, the oldest first",
                      [options](Session& session) { return events(session, *options); });
  events_command.add_flag("--follow", options->follow, "Go on as things happen, until Ctrl-C");
  events_command
      .add_option("--since", options->since, "Only events with a higher number than this one")
      ->type_name("N");
}

}  // namespace samepage::cli
