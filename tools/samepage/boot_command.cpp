#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/samepage/boot_messages.h"
#include "tools/samepage/storm_run.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/template_create.h"

namespace samepage::cli {
namespace {

using nlohmann::json;

struct BootOptions {
  std::string source;
  std::size_t count = 1;
  std::string name;
  std::vector<std::string> on;
  bool cold = false;
  bool paused = false;
  bool replace_disks = false;
  bool dry_run = false;
  TemplateOptions leader;
};

std::string request_of(const BootOptions& options) {
  json body = {{"source", options.source},  {"count", options.count},
               {"on", options.on},          {"cold", options.cold},
               {"paused", options.paused},  {"replace_disks", options.replace_disks},
               {"dry_run", options.dry_run}};
  if (!options.name.empty()) body["name"] = options.name;
  return body.dump();
}

/// Where the template is not there yet, the first boot becomes its leader.
Result<void> boot_leader(Session& session, const BootOptions& options) {
  if (options.leader.image.empty() && options.leader.domain_file.empty()) return {};
  const auto there =
      session.placer.get("/templates/" + http::url_encoded(options.source), answer_deadline());
  const bool missing = !there && there.error().code() == Errc::kNotFound;
  if (!missing && !(there && TRY(parse_template(*there)).state == "failed")) {
    return there ? Result<void>() : tl::unexpected(there.error());
  }
  if (options.dry_run) {
    return fail(Errc::kNotFound, "no template " + options.source +
                                     " yet, and a dry run makes none: `samepage template create`");
  }
  TemplateOptions leader = options.leader;
  leader.name = options.source;
  if (!options.on.empty()) leader.host = options.on.front();
  TRY(create_template(session, leader));
  return {};
}

Result<void> boot(Session& session, const BootOptions& options) {
  TRY(boot_leader(session, options));
  const std::string body =
      TRY(session.placer.send("POST", "/storms", request_of(options), answer_deadline()));
  const Storm begun = TRY(parse_storm(body));
  if (options.dry_run) {
    print_storm(begun, body, session);
    session.talk << "dry run: nothing was booted\n";
    return {};
  }
  return follow_storm(begun.id, session);
}

}  // namespace

void add_boot(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<BootOptions>();
  CLI::App& command =
      subcommands.add(root, "boot", "Boot many VMs at once, forked from a template",
                      [options](Session& session) { return boot(session, *options); });
  command.add_option("source", options->source, "The template")
      ->required()
      ->type_name(kTemplateName);
  command.add_option("--count", options->count, "How many VMs")->capture_default_str();
  command.add_option("--name", options->name,
                     "The VMs' names, with % for the number; SOURCE-% when left out");
  command.add_option("--on", options->on, "The hosts to choose from; all when left out")
      ->type_name(kHostName);
  command.add_flag("--cold", options->cold, "Boot each from scratch, without forking");
  command.add_flag("--paused", options->paused, "Leave the VMs asleep");
  command.add_flag("--replace-disks", options->replace_disks,
                   "Remove disks that ended VMs of these names left");
  add_template_options(command, options->leader);
  command.add_flag("--dry-run", options->dry_run, "Show where they would go, boot nothing");
}

}  // namespace samepage::cli
