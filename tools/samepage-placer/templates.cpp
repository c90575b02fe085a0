#include "tools/samepage-placer/templates.h"

#include <algorithm>
#include <future>
#include <utility>

#include "core/log.h"

namespace samepage::control {
namespace {

/// Beyond what the agent itself waits.
constexpr auto kAgentSlack = std::chrono::seconds(120);

bool better(const FleetTemplate& a, const FleetTemplate& b) {
  return std::make_tuple(a.info.name(), -a.info.made_at_s()) <
         std::make_tuple(b.info.name(), -b.info.made_at_s());
}

}  // namespace

Templates::~Templates() {
  std::map<std::string, std::shared_ptr<Work>> works;
  {
    const MutexLock lock(mutex_);
    works.swap(works_);
  }
}

std::vector<std::string> Templates::hosts_up() const {
  std::vector<std::string> names;
  for (const placer::Host& host : fleet_.fleet().hosts) {
    if (host.state == placer::HostState::kUp) names.push_back(host.name);
  }
  return names;
}

Templates::Listing Templates::list(Deadline deadline) {
  std::vector<std::pair<std::string, std::future<Result<bus::Envelope>>>> answers;
  for (const std::string& host : hosts_up()) {
    answers.emplace_back(host, std::async(std::launch::async, [this, host, deadline] {
                           bus::Envelope envelope;
                           envelope.mutable_list_templates();
                           return bus_.request(host, std::move(envelope), deadline);
                         }));
  }
  Listing listing;
  std::map<std::string, FleetTemplate> by_id;
  for (auto& [host, answer] : answers) {
    const auto reply = answer.get();
    if (!reply) {
      listing.silent.push_back(host);
      continue;
    }
    for (const bus::TemplateInfo& info : reply->template_list().templates()) {
      FleetTemplate& known = by_id[info.id()];
      const bool stored = known.info.stored() || info.stored();
      known.info = info;
      known.info.set_stored(stored);
      if (info.on_host()) known.places.push_back({host, info.ram_bytes(), info.forks()});
    }
  }
  for (auto& [id, known] : by_id) listing.templates.push_back(std::move(known));
  std::sort(listing.templates.begin(), listing.templates.end(), better);
  return listing;
}

Result<FleetTemplate> Templates::find(const std::string& name, Deadline deadline) {
  const Listing listing = list(deadline);
  for (const FleetTemplate& one : listing.templates) {
    if (one.info.name() == name || one.info.id() == name) return one;
  }
  std::string silent;
  for (const std::string& host : listing.silent) silent += (silent.empty() ? "" : ", ") + host;
  return fail(Errc::kNotFound, "no template " + name + "; `samepage template list` lists them" +
                                   (silent.empty() ? "" : " (" + silent + " did not answer)"));
}

Result<void> Templates::begin(const bus::MakeTemplate& request, const std::string& host) {
  const auto up = hosts_up();
  if (std::find(up.begin(), up.end(), host) == up.end()) {
    return fail(Errc::kUnavailable, "host " + host + " is not up; `samepage hosts` lists them");
  }
  const MutexLock lock(mutex_);
  drop_ended();
  const auto before = works_.find(request.name());
  if (before != works_.end() && !before->second->making.ended) {
    return fail(Errc::kInvalid, "template " + request.name() + " is being made just now");
  }
  auto work = std::make_shared<Work>();
  work->making = {.name = request.name(), .host = host, .ended = false, .error = {}};
  const auto deadline =
      Deadline::clock::now() + std::chrono::milliseconds(request.time_max_ms()) + kAgentSlack;
  work->thread = std::jthread([this, request, host, deadline, self = work.get()] {
    bus::Envelope envelope;
    *envelope.mutable_make_template() = request;
    const auto reply = bus_.request(host, std::move(envelope), deadline);
    if (!reply) {
      log_warning("template not made name={} host={} why=\"{}\"", request.name(), host,
                  reply.error().message());
    }
    const MutexLock ended(mutex_);
    self->making.ended = true;
    if (!reply) self->making.error = reply.error().message();
  });
  works_[request.name()] = std::move(work);
  return {};
}

void Templates::drop_ended() {
  if (works_.size() < kMakingMax) return;
  std::erase_if(works_, [](const auto& work) { return work.second->making.ended; });
}

Result<Templates::Making> Templates::making(const std::string& name) const {
  const MutexLock lock(mutex_);
  const auto found = works_.find(name);
  if (found == works_.end()) return fail(Errc::kNotFound, "no template " + name + " is being made");
  return found->second->making;
}

Result<void> Templates::remove(const std::string& name, Deadline deadline) {
  const FleetTemplate known = TRY(find(name, deadline));
  for (const placer::Host& host : fleet_.fleet().hosts) {
    if (host.state == placer::HostState::kDown) {
      log_warning("template may stay on a host that is down name={} host={}", name, host.name);
    }
  }
  std::vector<std::string> hosts;
  for (const FleetTemplate::Place& place : known.places) hosts.push_back(place.host);
  if (hosts.empty()) hosts = hosts_up();
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    bus::Envelope envelope;
    envelope.mutable_remove_template()->set_name(known.info.name());
    // The first takes it out of the store, where all of them would look.
    envelope.mutable_remove_template()->set_from_store(i == 0);
    TRY(bus_.request(hosts[i], std::move(envelope), deadline));
  }
  const MutexLock lock(mutex_);
  const auto work = works_.find(name);
  if (work != works_.end() && work->second->making.ended) works_.erase(work);
  return {};
}

Result<std::vector<std::string>> Templates::verify(const std::string& name, Deadline deadline) {
  const FleetTemplate known = TRY(find(name, deadline));
  std::vector<std::string> differences;
  std::vector<std::string> hosts;
  for (const FleetTemplate::Place& place : known.places) hosts.push_back(place.host);
  // With no RAM file anywhere, some host gets it: that verifies every page that the store has.
  if (hosts.empty() && !hosts_up().empty()) hosts.push_back(hosts_up().front());
  for (const std::string& host : hosts) {
    bus::Envelope envelope;
    envelope.mutable_fetch_template()->set_name(known.info.name());
    envelope.mutable_fetch_template()->set_verify(true);
    const auto reply = bus_.request(host, std::move(envelope), deadline);
    if (!reply) differences.push_back(host + ": " + reply.error().message());
  }
  return differences;
}

}  // namespace samepage::control
