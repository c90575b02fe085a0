#include "core/bus_requests.h"

#include <climits>
#include <random>
#include <utility>

namespace samepage {
namespace {

std::string peer_name(const std::string& host) {
  return host.empty() ? "the placer" : "host " + host;
}

std::uint64_t random_start() {
  std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

}  // namespace

std::string encode(const bus::Envelope& envelope) {
  return envelope.SerializeAsString();
}

Result<bus::Envelope> decode(const void* data, std::size_t size) {
  bus::Envelope envelope;
  if (size > INT_MAX || !envelope.ParseFromArray(data, static_cast<int>(size))) {
    return fail(Errc::kCorrupt, "these bytes are no bus message");
  }
  return envelope;
}

bus::Failure to_failure(const Error& error) {
  bus::Failure failure;
  failure.set_code(static_cast<std::uint32_t>(error.code()));
  failure.set_message(error.message());
  return failure;
}

Error to_error(const bus::Failure& failure) {
  const bool known = failure.code() <= static_cast<std::uint32_t>(Errc::kIo);
  return {known ? static_cast<Errc>(failure.code()) : Errc::kIo, failure.message()};
}

BusRequests::BusRequests(std::size_t requests_max)
    : requests_max_(requests_max), last_id_(random_start()) {}

Result<bus::Envelope> BusRequests::ask(BusOutbox& outbox, const std::string& host,
                                       bus::Envelope envelope, Deadline deadline) {
  const std::uint64_t id = next_id();
  envelope.set_request(id);
  envelope.set_is_reply(false);
  auto answer = TRY(add(id, host));
  const auto posted = outbox.post({host, encode(envelope), id});
  if (!posted) {
    remove(id);
    return tl::unexpected(posted.error());
  }
  if (answer.wait_until(deadline) == std::future_status::timeout) {
    remove(id);
    return fail(Errc::kTimedOut, peer_name(host) + " did not answer in time");
  }
  return answer.get();
}

Result<std::future<Result<bus::Envelope>>> BusRequests::add(std::uint64_t id,
                                                            const std::string& host) {
  const MutexLock lock(mutex_);
  if (closed_) return fail(Errc::kUnavailable, "the bus is closed");
  if (pending_.size() >= requests_max_) {
    return fail(Errc::kUnavailable, "too many requests wait for an answer");
  }
  Pending& pending = pending_[id];
  pending.host = host;
  return pending.answer.get_future();
}

void BusRequests::remove(std::uint64_t id) {
  const MutexLock lock(mutex_);
  pending_.erase(id);
}

std::uint64_t BusRequests::next_id() {
  const MutexLock lock(mutex_);
  if (++last_id_ == 0) ++last_id_;
  return last_id_;
}

void BusRequests::mark_sent(std::uint64_t id) {
  const MutexLock lock(mutex_);
  const auto found = pending_.find(id);
  if (found != pending_.end()) found->second.sent = true;
}

void BusRequests::complete(const std::string& host, bus::Envelope reply) {
  const MutexLock lock(mutex_);
  const auto found = pending_.find(reply.request());
  if (found == pending_.end() || found->second.host != host) return;
  if (reply.has_failure()) {
    found->second.answer.set_value(tl::unexpected(to_error(reply.failure())));
  } else {
    found->second.answer.set_value(std::move(reply));
  }
  pending_.erase(found);
}

void BusRequests::refuse(std::uint64_t id, Error error) {
  const MutexLock lock(mutex_);
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  found->second.answer.set_value(tl::unexpected(std::move(error)));
  pending_.erase(found);
}

void BusRequests::connection_lost(const std::string& host) {
  const MutexLock lock(mutex_);
  for (auto at = pending_.begin(); at != pending_.end();) {
    if (at->second.sent && at->second.host == host) {
      at->second.answer.set_value(
          fail(Errc::kTimedOut, "the connection to " + peer_name(host) +
                                    " was lost before it answered; the outcome is unknown"));
      at = pending_.erase(at);
    } else {
      ++at;
    }
  }
}

void BusRequests::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  for (auto& [id, pending] : pending_) {
    pending.answer.set_value(fail(Errc::kUnavailable, "the bus is closed"));
  }
  pending_.clear();
}

}  // namespace samepage
