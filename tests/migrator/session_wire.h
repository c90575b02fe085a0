#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "core/mutex.h"
#include "migrator/socket_listener.h"
#include "migrator/socket_stream.h"
#include "migrator/stream_pair.h"

namespace samepage::migrator {

/// The network between two agents: forwards TCP connections, and breaks them when told to. The
/// first connection of a session is its SIGNAL channel.
/// Threads: any.
class SessionWire {
 public:
  static constexpr std::size_t kSignal = 0;

  explicit SessionWire(std::uint16_t port)
      : port_(port),
        listener_(SocketListener::listen_tcp("127.0.0.1", {}).value()),
        acceptor_([this] { accept_all(); }) {}

  ~SessionWire() {
    listener_->stop();
    acceptor_.join();
    // A connection may break all others, so none goes before all have ended.
    cut_all();
    for (const auto& link : links_) {
      while (!link->pair->done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::uint16_t port() const { return listener_->port(); }

  /// Breaks every connection there is and every one to come.
  void cut_all() {
    const MutexLock lock(mutex_);
    is_cut_ = true;
    for (const auto& link : links_) link->pair->shut_down();
  }

  void cut(std::size_t connection) {
    const MutexLock lock(mutex_);
    if (connection < links_.size())
      (*std::next(links_.begin(), index(connection)))->pair->shut_down();
  }

  /// From now on nothing of this connection reaches the target, and the source does not notice.
  void lose_to_target(std::size_t connection) {
    const MutexLock lock(mutex_);
    if (connection < links_.size()) (*std::next(links_.begin(), index(connection)))->lost = true;
  }

  /// What happens to the byte that crosses as this one, counted over all connections, both ways.
  enum class Damage : std::uint8_t {
    kFlip,   ///< One of its bits is another.
    kCut,    ///< Every connection breaks, for good.
    kStall,  ///< Nothing passes any more, and nobody is told.
  };
  void damage(Damage damage, std::uint64_t at) {
    damage_ = damage;
    damage_at_ = at;
  }

  /// What crossed so far, both ways.
  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Link {
    std::atomic<bool> lost = false;
    std::unique_ptr<StreamPair> pair;
  };

  static std::ptrdiff_t index(std::size_t connection) {
    return static_cast<std::ptrdiff_t>(connection);
  }

  static Deadline in_time() { return std::chrono::steady_clock::now() + std::chrono::seconds(60); }

  Result<void> pass(ByteStream& to, std::span<const std::byte> bytes) {
    const std::uint64_t from = bytes_.fetch_add(bytes.size());
    const bool has_come = from + bytes.size() > damage_at_;
    if (has_come && damage_ == Damage::kStall) return {};
    if (has_come && damage_ == Damage::kCut) {
      cut_all();
      return fail(Errc::kUnavailable, "the wire was cut");
    }
    if (!has_come || from > damage_at_) return to.write_all(bytes, in_time());
    std::vector<std::byte> flipped(bytes.begin(), bytes.end());
    flipped[damage_at_ - from] ^= std::byte{1} << (damage_at_ % 8);
    return to.write_all(flipped, in_time());
  }

  void accept_all() {
    for (;;) {
      auto socket = listener_->accept(in_time());
      if (!socket) return;
      auto far_socket = connect_tcp("127.0.0.1", port_, in_time());
      const MutexLock lock(mutex_);
      if (!far_socket || is_cut_) continue;
      auto near = std::make_unique<SocketStream>(std::move(*socket));
      auto far = std::make_unique<SocketStream>(std::move(*far_socket));
      auto& link = links_.emplace_back(std::make_unique<Link>());
      StreamPairHooks hooks;
      hooks.to_far = [this, to = far.get(), link = link.get()](std::span<const std::byte> bytes) {
        return link->lost ? Result<void>{} : pass(*to, bytes);
      };
      hooks.to_near = [this, to = near.get()](std::span<const std::byte> bytes) {
        return pass(*to, bytes);
      };
      link->pair = std::make_unique<StreamPair>(std::move(near), std::move(far), std::move(hooks),
                                                in_time());
    }
  }

  const std::uint16_t port_;
  std::atomic<std::uint64_t> bytes_ = 0;
  Damage damage_ = Damage::kFlip;  // Set before the first connection.
  std::uint64_t damage_at_ = UINT64_MAX;
  Mutex mutex_;
  bool is_cut_ GUARDED_BY(mutex_) = false;
  std::list<std::unique_ptr<Link>> links_ GUARDED_BY(mutex_);
  const std::unique_ptr<SocketListener> listener_;
  std::jthread acceptor_;
};

}  // namespace samepage::migrator
