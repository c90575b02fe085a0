#include "tools/samepage/subcommands.h"

#include <algorithm>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/check.h"

namespace samepage::cli {

CLI::App& Subcommands::add(CLI::App& parent, const std::string& name, const std::string& about,
                           Action action) {
  CLI::App* app = parent.add_subcommand(name, about);
  entries_.push_back({.app = app, .action = std::move(action)});
  return *app;
}

Result<void> Subcommands::run(const CLI::App& root, Session& session) const {
  const CLI::App* innermost = &root;
  while (!innermost->get_subcommands().empty()) innermost = innermost->get_subcommands().front();
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& each) { return each.app == innermost; });
  CHECK(entry != entries_.end());
  return entry->action(session);
}

}  // namespace samepage::cli
