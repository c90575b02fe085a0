#include "imagestore/ofi_fabric.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "core/log.h"
#include "imagestore/ofi_endpoint.h"

namespace samepage::imagestore {
namespace {

// The progress thread sleeps inside of the provider for so long at most; taking a ticket back
// waits for it.
constexpr int kProgressMs = 20;

}  // namespace

class OfiServer::Impl {
 public:
  Impl(Options options, OfiEndpoint endpoint, std::string name, std::span<std::byte> arena)
      : options_(std::move(options)),
        endpoint_(std::move(endpoint)),
        name_(std::move(name)),
        arena_(arena),
        progress_([this](const std::stop_token& stop) { make_progress(stop); }) {}

  ~Impl() {
    progress_.request_stop();
    progress_.join();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<FabricTicket> grant(std::uint64_t offset, std::uint64_t bytes, std::uint64_t access) {
    if (regions_.size() >= options_.tickets_max) {
      return fail(Errc::kUnavailable, "too many tickets for this arena are out");
    }
    FabricTicket ticket;
    ticket.fabric = kOfiFabric;
    const auto memory = arena_.subspan(offset, bytes);
    const std::uint64_t asked_key = TRY(random_key());
    {
      const auto lock = interrupt();
      auto region = TRY(endpoint_.register_memory(memory, access, asked_key));
      ticket.key = fi_mr_key(region.get());
      regions_.emplace(ticket.key, std::move(region));
    }
    ticket.bytes = bytes;
    ticket.endpoint = name_;
    if (endpoint_.has_mode(FI_MR_VIRT_ADDR)) {
      ticket.address = reinterpret_cast<std::uint64_t>(memory.data());
    }
    return ticket;
  }

  Result<void> withdraw(std::uint64_t key) {
    const auto lock = interrupt();
    if (regions_.erase(key) == 0) return fail(Errc::kNotFound, "no such ticket is out");
    return {};
  }

  std::uint64_t arena_bytes() const { return arena_.size(); }

 private:
  // libfabric 1.17 lets a registration go while its progress still looks at it (mended in 1.18.1),
  // so that registrations change only while nobody makes progress.
  std::unique_lock<std::mutex> interrupt() {
    ++waiting_;
    std::unique_lock lock(mutex_);
    --waiting_;
    return lock;
  }

  void make_progress(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (waiting_ > 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        continue;
      }
      const std::lock_guard lock(mutex_);
      fi_cq_entry entry{};
      const ssize_t got = fi_cq_sread(endpoint_.completions.get(), &entry, 1, nullptr, kProgressMs);
      if (got == -FI_EAVAIL) log_fault();
    }
  }

  void log_fault() {
    fi_cq_err_entry fault{};
    if (fi_cq_readerr(endpoint_.completions.get(), &fault, 0) < 0) return;
    log_warning("fabric refused an operation why=\"{}\"", ofi_text(-fault.err));
  }

  const Options options_;
  OfiEndpoint endpoint_;
  const std::string name_;
  std::span<std::byte> arena_;
  std::unordered_map<std::uint64_t, OfiRegion> regions_;  // Changed under mutex_ only.
  std::mutex mutex_;                                      // Held while progress is made.
  std::atomic<int> waiting_ = 0;
  std::jthread progress_;
};

OfiServer::OfiServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OfiServer::~OfiServer() = default;

Result<std::unique_ptr<OfiServer>> OfiServer::create(const Options& options,
                                                     std::span<std::byte> arena) {
  auto endpoint = TRY(OfiEndpoint::open(
      {.provider = options.provider, .bind_address = options.address, .operations_max = 512}));
  const std::string address = TRY(endpoint.name());
  auto impl =
      std::make_unique<Impl>(options, std::move(endpoint), options.provider + ":" + address, arena);
  return std::unique_ptr<OfiServer>(new OfiServer(std::move(impl)));
}

Result<FabricTicket> OfiServer::admit() {
  return impl_->grant(0, impl_->arena_bytes(), FI_REMOTE_READ);
}

Result<FabricTicket> OfiServer::open_window(std::uint64_t offset, std::uint64_t bytes) {
  return impl_->grant(offset, bytes, FI_REMOTE_WRITE);
}

Result<void> OfiServer::withdraw(std::uint64_t key) {
  return impl_->withdraw(key);
}

}  // namespace samepage::imagestore
