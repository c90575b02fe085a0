#include "imagestore/shm_fabric.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kOperationsMax = 4096;

Error refused(const std::string& what) {
  return {Errc::kIo, what + ": " + std::generic_category().message(errno)};
}

/// A mapping of a memfd, undone with it.
class Mapping {
 public:
  static Result<Mapping> create(int descriptor, std::uint64_t bytes, int protection) {
    struct stat facts {};
    if (::fstat(descriptor, &facts) != 0) return tl::unexpected(refused("look at shared memory"));
    // A size that can shrink would let its owner kill whoever reads it.
    const int seals = ::fcntl(descriptor, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
        static_cast<std::uint64_t>(facts.st_size) < bytes || bytes == 0) {
      return fail(Errc::kInvalid, "the ticket's memory is not sealed, or smaller than it says");
    }
    void* const memory = ::mmap(nullptr, bytes, protection, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED) return tl::unexpected(refused("map shared memory"));
    return Mapping({static_cast<std::byte*>(memory), bytes});
  }

  explicit Mapping(std::span<std::byte> memory) : memory_(memory) {}
  Mapping(Mapping&& other) noexcept : memory_(std::exchange(other.memory_, {})) {}
  Mapping& operator=(Mapping&&) = delete;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
  }

  std::span<std::byte> memory() const { return memory_; }

 private:
  std::span<std::byte> memory_;
};

class ShmMemory final : public RemoteMemory {
 public:
  ShmMemory(Mapping mapping, const FabricTicket& ticket, FabricAccess access, Deadline expires,
            const Clock& clock)
      : RemoteMemory(ticket.bytes),
        mapping_(std::move(mapping)),
        access_(access),
        key_(ticket.key),
        pass_offset_(ticket.pass_offset),
        expires_(expires),
        clock_(clock) {}

  Result<void> read_batch(std::span<const RemoteRead> reads) override {
    TRY(check(reads.size(), FabricAccess::kRead));
    for (const RemoteRead& read : reads) TRY(check_range(read.offset, read.into.size()));
    for (const RemoteRead& read : reads) {
      std::memcpy(read.into.data(), mapping_.memory().data() + read.offset, read.into.size());
      done_.push_back({.tag = read.tag, .result = {}});
    }
    return {};
  }

  std::optional<std::span<const std::byte>> view(std::uint64_t offset,
                                                 std::size_t size) const override {
    if (!check(0, FabricAccess::kRead) || !check_range(offset, size)) return std::nullopt;
    return mapping_.memory().subspan(offset, size);
  }

  Result<void> write_batch(std::span<const RemoteWrite> writes) override {
    TRY(check(writes.size(), FabricAccess::kWrite));
    for (const RemoteWrite& write : writes) TRY(check_range(write.offset, write.from.size()));
    for (const RemoteWrite& write : writes) {
      std::memcpy(mapping_.memory().data() + write.offset, write.from.data(), write.from.size());
      done_.push_back({.tag = write.tag, .result = {}});
    }
    return {};
  }

  void poll(std::vector<RemoteDone>& done, Deadline) override {
    if (done.empty()) {
      done.swap(done_);
      return;
    }
    std::ranges::move(done_, std::back_inserter(done));
    done_.clear();
  }

  std::size_t under_way() const override { return done_.size(); }
  std::size_t operations_max() const override { return kOperationsMax; }

  bool is_usable() const override {
    return clock_.now() < expires_ && (access_ == FabricAccess::kWrite || has_pass());
  }

  void extend(Deadline expires) override { expires_ = expires; }
  bool is_local() const override { return true; }

 private:
  bool has_pass() const {
    auto* const word = reinterpret_cast<std::uint64_t*>(mapping_.memory().data() + pass_offset_);
    return std::atomic_ref<std::uint64_t>(*word).load(std::memory_order_acquire) == key_;
  }

  Result<void> check(std::size_t operations, FabricAccess access) const {
    if (access != access_) return fail(Errc::kInvalid, "the ticket is not for this kind of access");
    if (!is_usable()) return fail(Errc::kUnavailable, "the lease has expired or was revoked");
    if (done_.size() + operations > kOperationsMax) {
      return fail(Errc::kUnavailable, "too many operations are under way");
    }
    return {};
  }

  Mapping mapping_;
  const FabricAccess access_;
  const std::uint64_t key_;
  const std::uint64_t pass_offset_;
  Deadline expires_;
  const Clock& clock_;
  std::vector<RemoteDone> done_;
};

}  // namespace

ShmServer::~ShmServer() {
  for (const auto& [key, pass] : passes_) set_pass(pass, 0);
}

void ShmServer::set_pass(std::uint64_t pass, std::uint64_t value) {
  auto* const word =
      reinterpret_cast<std::uint64_t*>(arena_.subspan(kPassesOffset + pass * sizeof(value)).data());
  std::atomic_ref<std::uint64_t>(*word).store(value, std::memory_order_release);
}

Result<FabricTicket> ShmServer::admit() {
  std::vector<bool> taken(kPassesMax);
  for (const auto& [key, pass] : passes_) taken[pass] = true;
  const auto free_pass = std::ranges::find(taken, false);
  if (free_pass == taken.end()) {
    return fail(Errc::kUnavailable,
                std::to_string(kPassesMax) + " processes read this arena already");
  }
  const auto pass = static_cast<std::uint64_t>(free_pass - taken.begin());
  FabricTicket ticket;
  ticket.fabric = kShmFabric;
  ticket.key = TRY(random_key());
  ticket.bytes = arena_.size();
  ticket.pass_offset = kPassesOffset + pass * sizeof(std::uint64_t);
  ticket.descriptor = Fd(::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0));
  if (!ticket.descriptor) return tl::unexpected(refused("hand out an arena"));
  set_pass(pass, ticket.key);
  passes_.emplace(ticket.key, pass);
  return ticket;
}

Result<FabricTicket> ShmServer::open_window(std::uint64_t offset, std::uint64_t bytes) {
  CHECK(bytes <= arena_.size());
  CHECK(offset <= arena_.size() - bytes);
  if (windows_.size() >= options_.windows_max) {
    return fail(Errc::kUnavailable, "too many regions of this arena are being written");
  }
  Fd memfd(::memfd_create("samepage-window", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd || ::ftruncate(memfd.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return tl::unexpected(refused("make a window"));
  }
  FabricTicket ticket;
  ticket.fabric = kShmFabric;
  ticket.key = TRY(random_key());
  ticket.bytes = bytes;
  ticket.descriptor = Fd(::fcntl(memfd.get(), F_DUPFD_CLOEXEC, 0));
  if (!ticket.descriptor) return tl::unexpected(refused("hand out a window"));
  windows_.emplace(ticket.key, Window{.offset = offset, .bytes = bytes, .memfd = std::move(memfd)});
  return ticket;
}

Result<void> ShmServer::withdraw(std::uint64_t key) {
  if (const auto reader = passes_.find(key); reader != passes_.end()) {
    set_pass(reader->second, 0);
    passes_.erase(reader);
    return {};
  }
  const auto found = windows_.find(key);
  if (found == windows_.end()) return fail(Errc::kNotFound, "no such ticket is out");
  const Window window = std::move(found->second);
  windows_.erase(found);
  std::byte* into = arena_.subspan(window.offset).data();
  std::uint64_t at = 0;
  while (at < window.bytes) {
    const ssize_t got =
        ::pread(window.memfd.get(), into + at, window.bytes - at, static_cast<off_t>(at));
    if (got <= 0) return tl::unexpected(refused("take over a window"));
    at += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<std::unique_ptr<RemoteMemory>> open_shm(FabricTicket ticket, FabricAccess access,
                                               Deadline expires, const Clock& clock) {
  const bool is_reader = access == FabricAccess::kRead;
  const bool has_room_for_pass = ticket.bytes >= sizeof(std::uint64_t) &&
                                 ticket.pass_offset % sizeof(std::uint64_t) == 0 &&
                                 ticket.pass_offset <= ticket.bytes - sizeof(std::uint64_t);
  if (!ticket.descriptor || (is_reader && !has_room_for_pass)) {
    return fail(Errc::kInvalid, "the ticket is malformed");
  }
  auto mapping = TRY(Mapping::create(ticket.descriptor.get(), ticket.bytes,
                                     is_reader ? PROT_READ : PROT_READ | PROT_WRITE));
  std::unique_ptr<RemoteMemory> memory =
      std::make_unique<ShmMemory>(std::move(mapping), ticket, access, expires, clock);
  if (!memory->is_usable()) return fail(Errc::kUnavailable, "the ticket is not valid any more");
  return memory;
}

}  // namespace samepage::imagestore
