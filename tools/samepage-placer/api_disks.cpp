#include <nlohmann/json.hpp>

#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/request_body.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;
using nlohmann::json;

constexpr auto kListMax = std::chrono::seconds(10);

std::string hex(const std::string& bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 0xfU];
  }
  return text;
}

json disk_json(const bus::DiskState& disk, const std::string& host) {
  return {{"name", disk.name()},
          {"host", host},
          {"vm", disk.vm()},
          {"image", disk.image()},
          {"number", disk.number()},
          {"base", hex(disk.base())},
          {"committed", hex(disk.committed())},
          {"size_bytes", disk.size_bytes()},
          {"serves", disk.serves()},
          {"socket", disk.socket()},
          {"written_bytes", disk.written_bytes()},
          {"zeroed_bytes", disk.zeroed_bytes()},
          {"dirty_bytes", disk.dirty_bytes()},
          {"fetched_bytes", disk.fetched_bytes()},
          {"fetched_extents", disk.fetched_extents()},
          {"prefetched_extents", disk.prefetched_extents()},
          {"own_extents", disk.own_extents()},
          {"traced_pages", disk.traced_pages()},
          {"followed_pages", disk.followed_pages()},
          {"restarts", disk.restarts()},
          {"phase", disk.phase()}};
}

json committed_json(const bus::DiskCommitted& committed) {
  return {{"image", committed.image()},
          {"number", committed.number()},
          {"version", hex(committed.version())},
          {"changed_pages", committed.changed_pages()},
          {"stored_bytes", committed.stored_bytes()},
          {"guest_frozen", committed.guest_frozen()},
          {"note", committed.note()}};
}

Response answer(const json& value) {
  return {.body = value.dump(), .stream = {}};
}

Result<Response> list_disks(Placer& placer, const Request& request) {
  json disks = json::array();
  json failed = json::array();
  bus::DiskRequest list;
  list.mutable_list();
  const Deadline deadline = std::min(request.deadline, Deadline::clock::now() + kListMax);
  for (const placer::Host& host : placer.fleet().hosts) {
    const auto reply = placer.ask_disk(host.name, list, deadline);
    if (!reply) {
      failed.push_back({{"host", host.name}, {"message", reply.error().message()}});
      continue;
    }
    for (const bus::DiskState& disk : reply->disks()) disks.push_back(disk_json(disk, host.name));
  }
  return answer({{"disks", std::move(disks)}, {"failed", std::move(failed)}});
}

/// The disk that an agent answered with.
Result<Response> answer_disk(Placer& placer, const std::string& host, const bus::DiskRequest& ask,
                             Deadline deadline) {
  const bus::DiskReply reply = TRY(placer.ask_disk(host, ask, deadline));
  if (reply.disks_size() != 1) return fail(Errc::kCorrupt, host + " did not answer with a disk");
  return answer(disk_json(reply.disks(0), host));
}

Result<Response> create_disk(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  bus::DiskRequest ask;
  ask.set_name(TRY(body.text("name")));
  ask.mutable_create()->set_image(TRY(body.text("image")));
  ask.mutable_create()->set_vm(TRY(body.text_or("vm", "")));
  if (const auto number = TRY(body.quantity("number"))) {
    ask.mutable_create()->set_number(static_cast<std::uint64_t>(*number));
  }
  if (const auto size = TRY(body.quantity("size_bytes"))) {
    ask.mutable_create()->set_size_bytes(static_cast<std::uint64_t>(*size));
  }
  return answer_disk(placer, TRY(body.text("host")), ask, request.deadline);
}

bus::DiskRequest request_for(const Request& request) {
  bus::DiskRequest ask;
  ask.set_name(request.params.at("NAME"));
  return ask;
}

Result<Response> remove_disk(Placer& placer, const Request& request) {
  bus::DiskRequest ask = request_for(request);
  ask.mutable_remove();
  const auto removed = placer.ask_disk(request.params.at("HOST"), ask, request.deadline);
  if (!removed && removed.error().code() == Errc::kInvalid) {
    return http::conflict(removed.error().message());
  }
  if (!removed) return tl::unexpected(removed.error());
  return answer(json::object());
}

Result<Response> commit_disk(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  bus::DiskRequest ask = request_for(request);
  ask.mutable_commit()->set_image(TRY(body.text_or("image", "")));
  ask.mutable_commit()->set_freeze_guest(TRY(body.text_or("freeze", "yes")) != "no");
  const auto committed = placer.ask_disk(request.params.at("HOST"), ask, request.deadline);
  if (!committed && committed.error().code() == Errc::kInvalid) {
    return http::conflict(committed.error().message());
  }
  if (!committed) return tl::unexpected(committed.error());
  return answer(committed_json(committed->committed()));
}

Result<Response> clone_disk(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  bus::DiskRequest ask = request_for(request);
  ask.mutable_clone()->set_name(TRY(body.text("name")));
  ask.mutable_clone()->set_vm(TRY(body.text_or("vm", "")));
  return answer_disk(placer, request.params.at("HOST"), ask, request.deadline);
}

}  // namespace

void add_disk_routes(Placer& placer, std::vector<http::Route>& routes) {
  add_routes(placer, routes,
             {{"GET", "/api/v1/disks", list_disks},
              {"POST", "/api/v1/disks", create_disk},
              {"DELETE", "/api/v1/disks/HOST/NAME", remove_disk},
              {"POST", "/api/v1/disks/HOST/NAME/commit", commit_disk},
              {"POST", "/api/v1/disks/HOST/NAME/clone", clone_disk}});
}

}  // namespace samepage::control
