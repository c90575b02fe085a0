#include "tools/samepage-placer/store_relay.h"

#include <functional>
#include <utility>

namespace samepage::control {
namespace {

constexpr std::size_t kWaitingMax = 1'024;
constexpr auto kAnswerMax = std::chrono::seconds(1);

}  // namespace

StoreRelay::StoreRelay(BusServer& bus, const Clock& clock) : bus_(bus), clock_(clock) {
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    queues_.at(i) = std::make_unique<TaskQueue>("store" + std::to_string(i), kWaitingMax);
  }
}

void StoreRelay::stop() {
  for (const auto& queue : queues_) queue->stop();
}

void StoreRelay::pass_on(std::shared_ptr<BusIncoming> incoming) {
  const std::string& node = incoming->envelope().store_request().node();
  TaskQueue& queue = *queues_.at(std::hash<std::string>()(node) % queues_.size());
  const bool posted = queue.post([this, incoming] { incoming->answer(ask(*incoming)); });
  if (!posted) incoming->answer(fail(Errc::kUnavailable, "too many requests to store nodes wait"));
}

Result<bus::Envelope> StoreRelay::ask(const BusIncoming& incoming) {
  bus::Envelope envelope;
  bus::StoreRequest& request = *envelope.mutable_store_request();
  request = incoming.envelope().store_request();
  request.set_caller(incoming.host());
  return bus_.request(incoming.envelope().store_request().node(), std::move(envelope),
                      clock_.now() + kAnswerMax);
}

}  // namespace samepage::control
