#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace samepage::cli {

// What the placer says about templates and boots (docs/api.md). kCorrupt: it is not understood.

struct Template {
  std::string name, id, image;
  std::string state;  ///< "making", "ready" or "failed".
  std::string error;  ///< Empty when there is none.
  std::optional<double> memory_mib, vcpus, leader_ready_s, made_at_s;
  bool stored = false;
  std::string hypervisor;
  struct Place {
    std::string host;
    std::optional<double> ram_mib, forks;
  };
  std::vector<Place> places;
};
Result<Template> parse_template(std::string_view json);

struct TemplateList {
  std::vector<Template> templates;
  std::vector<std::string> silent_hosts;
};
Result<TemplateList> parse_templates(std::string_view json);
Result<std::vector<std::string>> parse_differences(std::string_view json);

struct Storm {
  struct Vm {
    std::string name, host, state, error;
    std::optional<double> ready_s, own_mib;
  };
  struct Host {
    std::string name, reason;
    std::optional<double> vms, used_after, fetched_bytes;
  };
  std::string id, state, template_name;
  std::optional<double> peak, peak_bound, decided_ms, total_s;
  std::vector<Host> hosts;
  std::vector<Vm> vms;
};
Result<Storm> parse_storm(std::string_view json);

/// A sleeper, or a VM that has none left: then `name` is empty.
struct Standby {
  std::string vm, now, now_host, now_state;
  std::string name, host, state;
};
using StandbyList = std::vector<Standby>;
Result<StandbyList> parse_standbys(std::string_view json);

}  // namespace samepage::cli
