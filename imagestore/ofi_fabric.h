#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "imagestore/fabric.h"

namespace samepage::imagestore {

inline constexpr char kOfiFabric[] = "ofi";

/// The fabric between hosts: libfabric's reliable datagrams with remote reads and writes. On RDMA
/// hardware (provider verbs;ofi_rxm) the network card serves them; elsewhere (tcp;ofi_rxm) a thread
/// of this object does. Keys are checked by card or provider, readers' registrations allow reading
/// only, and every ticket has a registration of its own, so that taking one back leaves the others.
///
/// A provider that makes its own keys (verbs) keeps to them; elsewhere keys are 64 random bits.
/// libfabric's shm provider is not used: it checks no keys, and stops serving when the server does.
/// Threads: as FabricServer; the progress thread is its own.
class OfiServer final : public FabricServer {
 public:
  struct Options {
    std::string provider = "tcp;ofi_rxm";
    std::string address = "127.0.0.1";  ///< To bind: numeric, of the network that clients use.
    std::size_t tickets_max = 4096;
  };

  /// Borrows the arena's memory. kUnavailable: no such provider for this address on this host.
  static Result<std::unique_ptr<OfiServer>> create(const Options& options,
                                                   std::span<std::byte> arena);
  ~OfiServer() override;

  std::string name() const override { return kOfiFabric; }
  Result<FabricTicket> admit() override;
  Result<FabricTicket> open_window(std::uint64_t offset, std::uint64_t bytes) override;
  Result<void> withdraw(std::uint64_t key) override;

 private:
  class Impl;
  explicit OfiServer(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

/// An operation that takes longer than this counts as lost, and breaks the memory.
inline constexpr std::chrono::seconds kOfiOperationMax{2};

Result<std::unique_ptr<RemoteMemory>> open_ofi(const FabricTicket& ticket, FabricAccess access,
                                               Deadline expires, const Clock& clock);

}  // namespace samepage::imagestore
