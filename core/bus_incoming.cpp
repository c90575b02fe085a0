#include <utility>

#include "core/bus.h"
#include "core/bus_outbox.h"
#include "core/bus_requests.h"
#include "core/log.h"

namespace samepage {

BusIncoming::BusIncoming(std::string host, bus::Envelope envelope, std::weak_ptr<BusOutbox> outbox)
    : host_(std::move(host)), envelope_(std::move(envelope)), outbox_(std::move(outbox)) {}

void BusIncoming::answer(Result<bus::Envelope> reply) {
  const auto outbox = outbox_.lock();
  if (!outbox || !wants_answer()) return;
  bus::Envelope envelope;
  if (reply) {
    envelope = *std::move(reply);
  } else {
    *envelope.mutable_failure() = to_failure(reply.error());
  }
  envelope.set_request(envelope_.request());
  envelope.set_is_reply(true);
  auto posted = outbox->post({host_, encode(envelope)});
  if (!posted && posted.error().code() == Errc::kInvalid) {
    envelope.Clear();
    envelope.set_request(envelope_.request());
    envelope.set_is_reply(true);
    *envelope.mutable_failure() = to_failure(posted.error());
    posted = outbox->post({host_, encode(envelope)});
  }
  if (!posted) {
    log_warning("bus dropped an answer to={} reason={}", host_.empty() ? "placer" : host_,
                posted.error().message());
  }
}

}  // namespace samepage
