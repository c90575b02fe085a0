#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "imagestore/manifest_node.h"
#include "imagestore/ring.h"
#include "imagestore/store_control.h"

namespace samepage::imagestore {

/// Looks out for a reader of one version: what the ring is now, which extents have more homes, and
/// which hosts have read the version, so that a boot is seeded by hosts that run the same image.
/// Tells in return what the reader reads most. One thread, which asks this host's agent; an agent
/// that does not answer leaves the last news as they are.
///
/// Threads: methods from the reader's thread.
class StoreScout {
 public:
  struct Options {
    VersionId version;
    std::chrono::milliseconds ring_interval{1'000};
    std::chrono::milliseconds warm_interval{60'000};  ///< The agent has to ask the placer.
    std::chrono::milliseconds call_max{2'000};
    std::size_t neighbours_max = 4;
  };

  struct News {
    std::string own_node;  ///< This host's name on the ring.
    Ring ring;
    std::unordered_set<ObjectName> hot;
    std::vector<std::string> neighbours;  ///< Best first.
  };

  using Reads = std::vector<std::pair<ObjectName, std::uint64_t>>;

  StoreScout(const Options& options, std::unique_ptr<StoreControl> control);
  ~StoreScout();
  StoreScout(const StoreScout&) = delete;
  StoreScout& operator=(const StoreScout&) = delete;

  /// What has changed since the last call, whole; none when nothing has. Costs next to nothing.
  std::optional<News> take_news();

  /// How often each extent was read since the last call.
  void tell(const Reads& reads);

 private:
  void run(const std::stop_token& stop);
  void ask_ring();
  void ask_warm();
  void tell_reads();
  std::optional<bus::StoreReply> call(const bus::StoreRequest& request);
  void publish();

  const Options options_;
  const std::unique_ptr<StoreControl> control_;

  // The thread's own.
  std::string ring_seen_;  ///< As it came.
  News news_;
  Deadline next_warm_{};

  std::mutex mutex_;
  std::atomic<bool> has_fresh_ = false;
  std::optional<News> fresh_;
  Reads reads_;

  std::jthread thread_;  // Last: begins when everything else is there.
};

}  // namespace samepage::imagestore
