#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"

namespace samepage::imagestore {

/// What lets a client at a stretch of a server's memory: made by FabricServer, carried to the
/// client over a channel that knows who it is, spent with open_remote(). Its key is random, so that
/// it cannot be guessed, and is never logged.
struct FabricTicket {
  std::string fabric;  ///< "shm" or "ofi".
  std::uint64_t key = 0;
  std::uint64_t address = 0;  ///< Of the first byte, as the fabric counts.
  std::uint64_t bytes = 0;
  std::string endpoint;  ///< ofi: the provider's name, a colon, and its address.
  std::uint64_t pass_offset =
      0;          ///< shm: where in the arena the word lies that says "still valid".
  Fd descriptor;  ///< shm: the memory itself.
};

enum class FabricAccess : std::uint8_t { kRead, kWrite };

/// The server's end of a fabric: hands out one-sided access to an arena and takes it back. The
/// server's processor has no part in the reads and writes themselves (but for what a software
/// provider needs to play the network card).
///
/// Invariant: reading is granted for the whole arena and writing for one region at a time; a key
/// opens nothing else. After withdraw() returns, no client that keeps to the protocol reads, and,
/// for a region, no client writes whatever it keeps to.
/// Threads: one at a time. Lifetime: borrows the arena's memory.
class FabricServer {
 public:
  virtual ~FabricServer() = default;

  virtual std::string name() const = 0;

  /// kUnavailable: as many tickets are out as can be. kIo: the system refused.
  virtual Result<FabricTicket> admit() = 0;

  /// A region, as an offset in the arena and its bytes, for writing.
  virtual Result<FabricTicket> open_window(std::uint64_t offset, std::uint64_t bytes) = 0;

  /// Takes a ticket back. For a window: what was written is in the arena afterwards. kNotFound: no
  /// such ticket is out.
  virtual Result<void> withdraw(std::uint64_t key) = 0;
};

struct RemoteRead {
  std::uint64_t tag = 0;
  std::uint64_t offset = 0;  ///< From the ticket's first byte.
  std::span<std::byte> into;
};

struct RemoteWrite {
  std::uint64_t tag = 0;
  std::uint64_t offset = 0;
  std::span<const std::byte> from;
};

struct RemoteDone {
  std::uint64_t tag = 0;
  Result<void> result;
};

/// A client's view of the memory that a ticket opens. What is read is bytes, not truth: it may be
/// torn, stale or forged, and whoever reads verifies.
///
/// Many operations are under way at once and complete in any order. After an operation failed the
/// memory is broken: everything under way ends, and so does everything later, with kUnavailable;
/// ask for a new ticket.
/// Threads: one at a time. Lifetime: buffers are borrowed until their operation is done;
/// destroying the memory gives all of them back at once.
class RemoteMemory {
 public:
  virtual ~RemoteMemory() = default;

  /// Begins all or none. kUnavailable: broken, expired or revoked, or more than operations_max()
  /// would be under way. kInvalid: out of the ticket's range, or the ticket is for writing only.
  virtual Result<void> read_batch(std::span<const RemoteRead> reads) = 0;
  virtual Result<void> write_batch(std::span<const RemoteWrite> writes) = 0;

  /// Of memory that is_local(): a range where it lies, to be copied from at once; others write to
  /// it. None when there is no such view, for whatever reason: read_batch() says why.
  virtual std::optional<std::span<const std::byte>> view(std::uint64_t, std::size_t) const {
    return std::nullopt;
  }

  /// Appends what is done; waits for the first until `deadline`.
  virtual void poll(std::vector<RemoteDone>& done, Deadline deadline) = 0;

  virtual std::size_t under_way() const = 0;
  virtual std::size_t operations_max() const = 0;

  /// False once the memory is broken, its ticket was withdrawn, or its time is over.
  virtual bool is_usable() const = 0;

  /// Moves the moment after which the ticket counts as expired.
  virtual void extend(Deadline expires) = 0;

  /// Reading costs no more than a copy, so that nothing is gained by remembering an index.
  virtual bool is_local() const = 0;

  std::uint64_t bytes() const { return bytes_; }

 protected:
  explicit RemoteMemory(std::uint64_t bytes) : bytes_(bytes) {}

  /// kInvalid: [offset, offset + size) does not lie inside of the ticket's memory.
  Result<void> check_range(std::uint64_t offset, std::size_t size) const;

 private:
  std::uint64_t bytes_;
};

/// Opens the memory of a ticket that was handed to this process. kInvalid: a fabric that this
/// program does not know, or a malformed ticket. kUnavailable: the server cannot be reached.
Result<std::unique_ptr<RemoteMemory>> open_remote(FabricTicket ticket, FabricAccess access,
                                                  Deadline expires, const Clock& clock);

/// A key, or another number that nobody can guess. kIo: the system has no randomness.
Result<std::uint64_t> random_key();

}  // namespace samepage::imagestore
