#include "tools/samepage/boot_messages.h"

#include <nlohmann/json.hpp>

#include "tools/samepage/json_reading.h"

namespace samepage::cli {
namespace {

using nlohmann::json;

Template read_template(const json& object) {
  Template one{.name = object.at("name").get<std::string>(),
               .id = text(object, "id"),
               .image = text(object, "image"),
               .state = text(object, "state"),
               .error = text(object, "error"),
               .memory_mib = number(object, "memory_mib"),
               .vcpus = number(object, "vcpus"),
               .leader_ready_s = number(object, "leader_ready_s"),
               .made_at_s = number(object, "made_at_s"),
               .stored = object.value("stored", false),
               .hypervisor = text(object, "hypervisor"),
               .places = {}};
  for (const json& place : object.value("hosts", json::array())) {
    one.places.push_back({text(place, "host"), number(place, "ram_mib"), number(place, "forks")});
  }
  return one;
}

Storm read_storm(const json& object) {
  Storm storm{.id = text(object, "id"),
              .state = object.at("state").get<std::string>(),
              .template_name = text(object, "template"),
              .peak = number(object, "peak"),
              .peak_bound = number(object, "peak_bound"),
              .decided_ms = number(object, "decided_ms"),
              .total_s = number(object, "total_s"),
              .hosts = {},
              .vms = {}};
  for (const json& host : object.at("hosts")) {
    storm.hosts.push_back({.name = text(host, "host"),
                           .reason = text(host, "reason"),
                           .vms = number(host, "vms"),
                           .used_after = number(host, "used_after"),
                           .fetched_bytes = number(host, "fetched_bytes")});
  }
  for (const json& vm : object.at("vms")) {
    storm.vms.push_back({.name = text(vm, "name"),
                         .host = text(vm, "host"),
                         .state = text(vm, "state"),
                         .error = text(vm, "error"),
                         .ready_s = number(vm, "ready_s"),
                         .own_mib = number(vm, "own_mib")});
  }
  return storm;
}

}  // namespace

Result<Template> parse_template(std::string_view json_text) {
  return parse(json_text, read_template);
}

Result<TemplateList> parse_templates(std::string_view json_text) {
  return parse(json_text, [](const json& object) {
    TemplateList list;
    for (const json& one : object.at("templates")) list.templates.push_back(read_template(one));
    for (const json& host : object.value("silent_hosts", json::array())) {
      list.silent_hosts.push_back(host.get<std::string>());
    }
    return list;
  });
}

Result<std::vector<std::string>> parse_differences(std::string_view json_text) {
  return parse(json_text, [](const json& object) {
    return object.at("differences").get<std::vector<std::string>>();
  });
}

Result<Storm> parse_storm(std::string_view json_text) {
  return parse(json_text, read_storm);
}

Result<StandbyList> parse_standbys(std::string_view json_text) {
  return parse(json_text, [](const json& object) {
    StandbyList list;
    for (const json& vm : object.at("vms")) {
      Standby one{.vm = text(vm, "vm"),
                  .now = text(vm, "now"),
                  .now_host = text(vm, "host"),
                  .now_state = text(vm, "state"),
                  .name = {},
                  .host = {},
                  .state = {}};
      const json& sleepers = vm.at("standbys");
      if (sleepers.empty()) list.push_back(one);
      for (const json& sleeper : sleepers) {
        one.name = text(sleeper, "name");
        one.host = text(sleeper, "host");
        one.state = text(sleeper, "state");
        list.push_back(one);
      }
    }
    return list;
  });
}

}  // namespace samepage::cli
