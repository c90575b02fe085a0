#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// What passes on a session's kDisk channel (docs/formats/session.md, "Disks").
enum class DiskWord : std::uint8_t {
  // Source to target.
  kOffer = 1,
  kParcel = 2,
  kRound = 3,     ///< A round has ended: flush.
  kComplete = 4,  ///< Nothing more will come.
  // Target to source.
  kAnswer = 5,   ///< To kOffer: the disk is made.
  kFlushed = 6,  ///< To kRound.
  kArrived = 7,  ///< To kComplete: the guest may run on it here.
  kRefused = 8,  ///< At any time; the body says why. Nothing follows.
};

inline constexpr std::size_t kDiskWordsMax = 4'096;
inline constexpr std::size_t kDiskParcelMax = 128U << 10U;

struct DiskMessage {
  DiskWord word = DiskWord::kOffer;
  std::vector<std::byte> body;
};

/// One kDisk channel.
/// Threads: one sender and one receiver at the same time; shut_down() from any.
class DiskLink final {
 public:
  explicit DiskLink(std::unique_ptr<ByteStream> stream) : stream_(std::move(stream)) {}

  /// Errors: those of the stream.
  Result<void> send(DiskWord word, std::span<const std::byte> body, Deadline deadline);

  /// The reason is cut when it is long. Failures are not reported: the connection ends.
  void refuse(const Error& why, Deadline deadline);

  /// Reads until the other side closes: a connection that ends with something unread may take with
  /// it what was said last.
  void discard(Deadline deadline);

  /// kCorrupt: what came is no message.
  Result<DiskMessage> receive(Deadline deadline);

  /// The same, when only this word may come. kCorrupt: another one. kRefused's reason as an error.
  Result<DiskMessage> expect(DiskWord word, Deadline deadline);

  void finish() { static_cast<void>(stream_->finish_writing()); }
  void shut_down() { stream_->shut_down(); }

 private:
  const std::unique_ptr<ByteStream> stream_;
};

}  // namespace samepage::migrator
