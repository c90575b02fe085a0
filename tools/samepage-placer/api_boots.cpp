#include <algorithm>
#include <charconv>
#include <chrono>

#include <nlohmann/json.hpp>

#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/request_body.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;
using nlohmann::json;

constexpr auto kListMax = std::chrono::seconds(10);
constexpr double kMibBytes = 1U << 20U;
constexpr double kTimeMaxDefault = 600;

double mib(std::uint64_t bytes) {
  return static_cast<double>(bytes) / kMibBytes;
}

double seconds(std::uint64_t ms) {
  return static_cast<double>(ms) / 1'000;
}

Response answer(const json& value) {
  return {.body = value.dump(-1, ' ', false, json::error_handler_t::replace), .stream = {}};
}

Deadline soon(const Request& request) {
  return std::min(request.deadline, Deadline::clock::now() + kListMax);
}

json to_json(const FleetTemplate& one) {
  json hosts = json::array();
  for (const FleetTemplate::Place& place : one.places) {
    hosts.push_back(
        {{"host", place.host}, {"ram_mib", mib(place.ram_bytes)}, {"forks", place.forks}});
  }
  const bus::TemplateInfo& info = one.info;
  return {{"name", info.name()},
          {"id", info.id()},
          {"state", "ready"},
          {"error", nullptr},
          {"image", info.image().empty() ? json(nullptr) : json(info.image())},
          {"image_version", info.image_version()},
          {"memory_mib", mib(info.memory_bytes())},
          {"vcpus", info.vcpus()},
          {"hypervisor", info.hypervisor()},
          {"made_at_s", info.made_at_s()},
          {"leader_ready_s", seconds(info.ready_ms())},
          {"stored", info.stored()},
          {"hosts", std::move(hosts)}};
}

json to_json(const Templates::Making& making) {
  return {{"name", making.name},
          {"state", !making.ended          ? "making"
                    : making.error.empty() ? "ready"
                                           : "failed"},
          {"error", making.error.empty() ? json(nullptr) : json(making.error)},
          {"host", making.host}};
}

json to_json(const StormRecord& record) {
  json vms = json::array();
  for (const StormVm& vm : record.vms) {
    vms.push_back({{"name", vm.name},
                   {"uuid", vm.uuid},
                   {"host", vm.host},
                   {"state", to_string(vm.state)},
                   {"error", vm.error.empty() ? json(nullptr) : json(vm.error)},
                   {"ready_s", seconds(vm.took_ms)},
                   {"own_mib", mib(vm.own_bytes)}});
  }
  json hosts = json::array();
  for (const StormRecord::Host& host : record.hosts) {
    hosts.push_back({{"host", host.name},
                     {"vms", host.vms},
                     {"reason", host.reason},
                     {"used_after", host.used_after},
                     {"fetched_bytes", host.fetched_bytes}});
  }
  return {{"id", std::to_string(record.id)},
          {"state", record.id == 0 ? "proposed"
                    : record.ended ? "ended"
                                   : "running"},
          {"template", record.template_name},
          {"cold", record.order.cold},
          {"peak", record.peak},
          {"peak_bound", record.peak_bound},
          {"decided_ms", static_cast<double>(record.decided_us) / 1'000},
          {"total_s", seconds(record.took_ms)},
          {"hosts", std::move(hosts)},
          {"vms", std::move(vms)}};
}

Result<Response> list_templates(Placer& placer, const Request& request) {
  const Templates::Listing listing = placer.templates().list(soon(request));
  json templates = json::array();
  for (const FleetTemplate& one : listing.templates) templates.push_back(to_json(one));
  return answer({{"templates", std::move(templates)}, {"silent_hosts", listing.silent}});
}

Result<Response> show_template(Placer& placer, const Request& request) {
  const std::string& name = request.params.at("NAME");
  const auto making = placer.templates().making(name);
  if (making && (!making->ended || !making->error.empty())) return answer(to_json(*making));
  const auto found = TRY(placer.templates().find(name, soon(request)));
  return answer(to_json(found));
}

/// The host with the most memory that no VM is configured for.
Result<std::string> roomiest_host(const placer::Fleet& fleet) {
  std::string best;
  std::int64_t most = INT64_MIN;
  for (const placer::Host& host : fleet.hosts) {
    if (host.state != placer::HostState::kUp) continue;
    auto left = static_cast<std::int64_t>(host.capacity_pages);
    for (const placer::Vm* vm : fleet.vms_on(host.name)) {
      left -= static_cast<std::int64_t>(vm->memory_pages);
    }
    if (left > most) {
      most = left;
      best = host.name;
    }
  }
  if (best.empty()) return fail(Errc::kUnavailable, "no host is up; `samepage hosts` lists them");
  return best;
}

/// What to boot: a domain, or an image and what a domain is made of.
Result<void> read_leader(const RequestBody& body, bus::MakeTemplate& make) {
  constexpr double kMemoryMibMax = 1U << 24U;
  constexpr double kVcpusMax = 4096;
  make.set_domain_xml(TRY(body.text_or("domain_xml", "")));
  make.set_image(TRY(body.text_or("image", "")));
  if (make.domain_xml().empty() && make.image().empty()) {
    return fail(Errc::kInvalid, R"(a template needs a "domain_xml", an "image", or both)");
  }
  const auto number = [&](const char* member, double otherwise, double max) -> Result<double> {
    return std::min(TRY(body.quantity(member)).value_or(otherwise), max);
  };
  make.set_image_version(static_cast<std::uint64_t>(TRY(number("image_version", 0, 1e9))));
  make.set_memory_mib(static_cast<std::uint64_t>(TRY(number("memory_mib", 1024, kMemoryMibMax))));
  make.set_vcpus(static_cast<std::uint32_t>(TRY(number("vcpus", 1, kVcpusMax))));
  make.set_kernel(TRY(body.text_or("kernel", "")));
  make.set_initrd(TRY(body.text_or("initrd", "")));
  make.set_command_line(TRY(body.text_or("command_line", "")));
  make.set_nic(TRY(body.text_or("nic", "")));
  return {};
}

Result<bus::MakeTemplate> read_make(const RequestBody& body) {
  bus::MakeTemplate make;
  make.set_name(TRY(body.text("name")));
  TRY(read_leader(body, make));
  const std::string when = TRY(body.text_or("ready_when", "time"));
  if (when != "serial" && when != "agent" && when != "time") {
    return fail(Errc::kInvalid, R"("ready_when" is "serial", "agent" or "time")");
  }
  make.set_ready(when == "serial"  ? bus::MakeTemplate::SERIAL
                 : when == "agent" ? bus::MakeTemplate::AGENT
                                   : bus::MakeTemplate::TIME);
  make.set_pattern(TRY(body.text_or("pattern", "")));
  const auto to_ms = [](double s) { return static_cast<std::uint64_t>(std::min(s, 3600.0) * 1e3); };
  make.set_ready_ms(to_ms(TRY(body.quantity("ready_s")).value_or(0)));
  make.set_time_max_ms(to_ms(TRY(body.quantity("time_max_s")).value_or(kTimeMaxDefault)));
  return make;
}

Result<Response> make_template(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const bus::MakeTemplate make = TRY(read_make(body));
  if (placer.templates().find(make.name(), soon(request))) {
    return http::conflict("template " + make.name() + " exists; `samepage template rm " +
                          make.name() + "` removes it");
  }
  std::string host = TRY(body.text_or("host", ""));
  if (host.empty()) host = TRY(roomiest_host(placer.fleet()));
  TRY(placer.templates().begin(make, host));
  const auto making = TRY(placer.templates().making(make.name()));
  return answer(to_json(making));
}

Result<Response> remove_template(Placer& placer, const Request& request) {
  TRY(placer.templates().remove(request.params.at("NAME"), request.deadline));
  return answer(json::object());
}

Result<Response> verify_template(Placer& placer, const Request& request) {
  const auto differences =
      TRY(placer.templates().verify(request.params.at("NAME"), request.deadline));
  return answer({{"differences", differences}});
}

}  // namespace

Response storm_answer(const StormRecord& record) {
  return answer(to_json(record));
}

namespace {

Result<StormOrder> read_order(const RequestBody& body) {
  constexpr double kCountMax = 1e6;
  StormOrder order;
  order.source = TRY(body.text("source"));
  order.count =
      static_cast<std::size_t>(std::min(TRY(body.quantity("count")).value_or(1), kCountMax));
  order.pattern = TRY(body.text_or("name", order.count == 1 ? order.source : order.source + "-%"));
  if (body.has("on")) order.on = TRY(body.texts("on"));
  order.cold = TRY(body.flag("cold", false));
  order.paused = TRY(body.flag("paused", false));
  order.replace_disks = TRY(body.flag("replace_disks", false));
  return order;
}

Result<Response> begin_storm(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const StormOrder order = TRY(read_order(body));
  // Which VMs are there is asked now: a storm that is asked for again goes on where it stopped.
  placer.ask_hosts(Placer::Freshness::kStates, soon(request));
  const bool dry_run = TRY(body.flag("dry_run", false));
  const auto record = TRY(dry_run ? placer.storms().decide(order, soon(request))
                                  : placer.storms().begin(order, soon(request)));
  return storm_answer(record);
}

Result<std::uint64_t> storm_id(const Request& request) {
  const std::string& text = request.params.at("ID");
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Errc::kNotFound, "no boot storm " + text);
  }
  return id;
}

Result<Response> show_storm(Placer& placer, const Request& request) {
  const std::uint64_t id = TRY(storm_id(request));
  const auto record = TRY(placer.storms().show(id));
  return answer(to_json(record));
}

Result<Response> cancel_storm(Placer& placer, const Request& request) {
  const std::uint64_t id = TRY(storm_id(request));
  TRY(placer.storms().cancel(id));
  return show_storm(placer, request);
}

}  // namespace

void add_boot_routes(Placer& placer, std::vector<http::Route>& routes) {
  add_routes(placer, routes,
             {{"GET", "/api/v1/templates", list_templates},
              {"POST", "/api/v1/templates", make_template},
              {"GET", "/api/v1/templates/NAME", show_template},
              {"DELETE", "/api/v1/templates/NAME", remove_template},
              {"POST", "/api/v1/templates/NAME/verify", verify_template},
              {"POST", "/api/v1/storms", begin_storm},
              {"GET", "/api/v1/storms/ID", show_storm},
              {"POST", "/api/v1/storms/ID/cancel", cancel_storm}});
}

}  // namespace samepage::control
