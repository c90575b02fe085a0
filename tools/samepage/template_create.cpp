#include "tools/samepage/template_create.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/samepage/boot_messages.h"
#include "tools/samepage/image_command.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using nlohmann::json;

constexpr auto kLookInterval = std::chrono::milliseconds(200);

Result<std::string> read_domain(const std::string& path) {
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || text.empty()) return fail(Errc::kInvalid, path + " cannot be read");
  return text;
}

/// "AGENT", a number of seconds, or a pattern for the serial line.
void put_ready_when(const std::string& when, json& body) {
  const bool number = !when.empty() && when.find_first_not_of("0123456789.") == std::string::npos;
  if (when == "AGENT" || when == "agent") {
    body["ready_when"] = "agent";
  } else if (number) {
    body["ready_when"] = "time";
    body["ready_s"] = std::strtod(when.c_str(), nullptr);
  } else {
    body["ready_when"] = "serial";
    body["pattern"] = when;
  }
}

/// IMAGE or IMAGE@VERSION, and the VM to boot it in.
Result<void> put_image(const TemplateOptions& options, json& body) {
  if (options.image.empty()) return {};
  const VersionName version = TRY(parse_version_name(options.image));
  body["image"] = version.image;
  body["image_version"] = version.number;
  body["memory_mib"] = options.memory_mib;
  body["vcpus"] = options.vcpus;
  body["kernel"] = options.kernel;
  body["initrd"] = options.initrd;
  body["command_line"] = options.append;
  body["nic"] = options.nic;
  return {};
}

Result<json> request_of(const TemplateOptions& options) {
  json body = {{"name", options.name}, {"time_max_s", options.time_max_s}, {"host", options.host}};
  if (!options.domain_file.empty()) body["domain_xml"] = TRY(read_domain(options.domain_file));
  TRY(put_image(options, body));
  put_ready_when(options.ready_when, body);
  return body;
}

}  // namespace

Result<std::string> create_template(Session& session, const TemplateOptions& options) {
  const json body = TRY(request_of(options));
  TRY(session.placer.send("POST", "/templates", body.dump(), answer_deadline()));
  const auto started = std::chrono::steady_clock::now();
  Interrupts interrupts;
  ProgressBar bar(session.talk, session.talk_width);
  bar.say("booting a leader for template " + printable(options.name));
  while (true) {
    const std::string answer =
        TRY(session.placer.get("/templates/" + http::url_encoded(options.name), answer_deadline()));
    const Template made = TRY(parse_template(answer));
    if (made.state == "failed") return fail(Errc::kUnavailable, made.error);
    if (made.state == "ready") {
      bar.clear();
      session.talk << "template " << printable(made.name) << " is ready: the leader took "
                   << show_ms(made.leader_ready_s.value_or(0) * 1e3) << '\n';
      return answer;
    }
    if (interrupts.count() > 0) {
      return fail(Errc::kUnavailable, "left template " + options.name +
                                          " to its host; `samepage template list` tells of it");
    }
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - started;
    bar.show(options.name, std::min(waited.count() / options.time_max_s, 1.0), "the leader boots");
    std::this_thread::sleep_for(kLookInterval);
  }
}

void add_template_options(CLI::App& command, TemplateOptions& options) {
  command
      .add_option("--image", options.image,
                  "An image of the store to boot; every VM gets a disk of its own on it")
      ->type_name("IMAGE[@VERSION]");
  command
      .add_option("--domain", options.domain_file,
                  "The libvirt domain to boot, as XML, instead of what the next options say")
      ->type_name(kFilePath);
  command.add_option("--memory", options.memory_mib, "The VMs' memory")
      ->type_name("MIB")
      ->capture_default_str();
  command.add_option("--vcpus", options.vcpus, "The VMs' processors")
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--kernel", options.kernel,
                  "A kernel on the host to boot directly; the disk's loader by default")
      ->type_name(kFilePath);
  command.add_option("--initrd", options.initrd, "That kernel's initrd")->type_name(kFilePath);
  command.add_option("--append", options.append, "That kernel's command line")->type_name("TEXT");
  command.add_option("--nic", options.nic, "A network card for each VM")
      ->type_name("network=NAME|bridge=NAME");
  command
      .add_option(
          "--ready-when", options.ready_when,
          "When it is ready: a pattern on its serial line or AGENT, then up to 15 s until it "
          "rests; or seconds")
      ->type_name("PATTERN|AGENT|SECONDS")
      ->capture_default_str();
  command.add_option("--time-max", options.time_max_s, "When to give up")
      ->type_name("SECONDS")
      ->capture_default_str();
}

}  // namespace samepage::cli
