#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "imagestore/fabric.h"

namespace samepage::imagestore {

inline constexpr char kShmFabric[] = "shm";

/// The fabric of one host: the arena's memfd, mapped read-only by clients, so that a read is a copy
/// and the server may be stopped or dead. Windows are memfds of their own, copied into the arena
/// when they are withdrawn: a mapping that was handed out cannot be taken back, so no client ever
/// holds a writable one of the arena.
///
/// For the same reason a withdrawn reader is told, not stopped: every batch first looks at the
/// ticket's pass, a word in the arena that withdraw() wipes. Tickets go only to processes whose
/// credentials the store's socket has checked.
class ShmServer final : public FabricServer {
 public:
  struct Options {
    std::size_t windows_max = 1024;
  };

  /// Where the passes of tickets are: in the arena's header, behind its first page.
  static constexpr std::uint64_t kPassesOffset = 4096;
  static constexpr std::uint64_t kPassesMax = 1536;

  /// Borrows the arena's memory and memfd.
  ShmServer(const Options& options, std::span<std::byte> arena, int descriptor)
      : options_(options), arena_(arena), descriptor_(descriptor) {}
  ~ShmServer() override;
  ShmServer(const ShmServer&) = delete;
  ShmServer& operator=(const ShmServer&) = delete;

  std::string name() const override { return kShmFabric; }
  Result<FabricTicket> admit() override;
  Result<FabricTicket> open_window(std::uint64_t offset, std::uint64_t bytes) override;
  Result<void> withdraw(std::uint64_t key) override;

 private:
  struct Window {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    Fd memfd;
  };

  void set_pass(std::uint64_t pass, std::uint64_t value);

  const Options options_;
  std::span<std::byte> arena_;
  const int descriptor_;
  std::unordered_map<std::uint64_t, std::uint64_t> passes_;  ///< By key: which word.
  std::unordered_map<std::uint64_t, Window> windows_;
};

Result<std::unique_ptr<RemoteMemory>> open_shm(FabricTicket ticket, FabricAccess access,
                                               Deadline expires, const Clock& clock);

}  // namespace samepage::imagestore
