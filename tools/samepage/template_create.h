#pragma once

#include <cstdint>
#include <string>

#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// What a leader is booted from, and until when.
struct TemplateOptions {
  std::string name;
  std::string domain_file;
  std::string image;
  std::uint64_t memory_mib = 1024;
  unsigned vcpus = 1;
  std::string kernel;
  std::string initrd;
  std::string append;
  std::string nic;
  std::string ready_when = "30";
  double time_max_s = 600;
  std::string host;  ///< Empty: the placer chooses.
};

/// All of them but the name and the host.
void add_template_options(CLI::App& command, TemplateOptions& options);

/// Has a leader booted and frozen, and shows how that goes on; what the placer says of the
/// template. kInvalid: there is such a template, or the options make no sense. kUnavailable: it
/// failed, or Ctrl-C left it to its host.
Result<std::string> create_template(Session& session, const TemplateOptions& options);

}  // namespace samepage::cli
