#include "imagestore/version_source.h"

#include <utility>

namespace samepage::imagestore {
namespace {

constexpr std::chrono::seconds kTellInterval{5};
constexpr std::size_t kHotTold = 64;

}  // namespace

VersionSource::VersionSource(std::unique_ptr<ImageStore> store)
    : store_(std::move(store)),
      origin_(store_->origin()),
      origin_extents_(origin_, store_->keys()) {}

Result<std::unique_ptr<VersionSource>> VersionSource::open(const Options& options,
                                                           const VersionId& version) {
  auto store = TRY(ImageStore::open(options.store));  // Not inside of new: TRY may return.
  std::unique_ptr<VersionSource> source(new VersionSource(std::move(store)));
  source->manifest_ = std::make_unique<Manifest>(
      TRY(Manifest::open(source->origin_, source->store_->keys(), version)));
  if (options.agent_socket.empty()) return source;
  source->control_ = std::make_unique<SocketControl>(options.agent_socket);
  StoreClient::Options client{.keys = source->store_->keys()};
  source->client_ = std::make_unique<StoreClient>(std::move(client), *source->control_,
                                                  &source->origin_extents_, source->clock_);
  source->scout_ =
      std::make_unique<StoreScout>(StoreScout::Options{.version = version},
                                   std::make_unique<SocketControl>(options.agent_socket));
  return source;
}

void VersionSource::tend() {
  if (!scout_) return;
  if (const auto news = scout_->take_news()) {
    client_->set_own_node(news->own_node);
    client_->set_ring(news->ring);
    client_->set_hot(news->hot);
    client_->set_neighbours(news->neighbours);
  }
  const auto now = clock_.now();
  if (now < next_tell_) return;
  next_tell_ = now + kTellInterval;
  if (const auto reads = client_->take_hottest(kHotTold); !reads.empty()) scout_->tell(reads);
}

ExtentSource& VersionSource::extents() {
  if (client_) return *client_;
  return origin_extents_;
}

VersionSource::Counts VersionSource::counts() const {
  Counts counts;
  counts.origin_bytes = origin_.counts().bytes;
  counts.node_bytes = origin_.counts().node_bytes;
  if (client_) {
    const StoreClient::Counts& client = client_->counts();
    counts.own_extents = client.own;
    counts.remote_extents = client.homes + client.neighbours;
    counts.origin_extents = client.origin;
    counts.failed_checks = client.failed_checks;
  }
  return counts;
}

}  // namespace samepage::imagestore
