#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "imagestore/ofi_endpoint.h"
#include "imagestore/ofi_fabric.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kOperationsMax = 256;
constexpr std::size_t kCompletionsAtOnce = 64;
// Providers that copy only into registered memory (verbs) get a stage of their own, and one copy.
constexpr std::size_t kStageSlotBytes = 160U << 10U;
constexpr std::size_t kStageSlots = 64;
// Between looks at the completions; what is lost is looked for in between, too.
constexpr std::chrono::microseconds kNapMin{20};
constexpr std::chrono::microseconds kNapMax{200};
constexpr std::chrono::milliseconds kWaitMax{100};

class OfiMemory final : public RemoteMemory {
 public:
  OfiMemory(OfiEndpoint endpoint, fi_addr_t peer, const FabricTicket& ticket, FabricAccess access,
            Deadline expires, const Clock& clock)
      : RemoteMemory(ticket.bytes),
        key_(ticket.key),
        address_(ticket.address),
        access_(access),
        peer_(peer),
        expires_(expires),
        clock_(clock),
        endpoint_(std::move(endpoint)),
        operations_(kOperationsMax) {
    for (Operation& operation : operations_) free_.push_back(&operation);
  }

  Result<void> set_up_stage() {
    if (!endpoint_->has_mode(FI_MR_LOCAL)) return {};
    stage_.resize(kStageSlots * kStageSlotBytes);
    const std::uint64_t key = TRY(random_key());
    stage_region_ = TRY(endpoint_->register_memory(stage_, FI_READ | FI_WRITE, key));
    operations_.resize(kStageSlots);
    free_.clear();
    for (Operation& operation : operations_) free_.push_back(&operation);
    return {};
  }

  Result<void> read_batch(std::span<const RemoteRead> reads) override {
    TRY(check(reads.size(), FabricAccess::kRead));
    for (const RemoteRead& read : reads) TRY(check_one(read.offset, read.into.size()));
    for (const RemoteRead& read : reads) {
      enqueue(read.tag, read.offset, read.into.data(), read.into.size());
    }
    post_waiting();
    return {};
  }

  Result<void> write_batch(std::span<const RemoteWrite> writes) override {
    TRY(check(writes.size(), FabricAccess::kWrite));
    for (const RemoteWrite& write : writes) TRY(check_one(write.offset, write.from.size()));
    for (const RemoteWrite& write : writes) {
      // The interface of libfabric wants one kind of pointer; a write's bytes are only read.
      enqueue(write.tag, write.offset, const_cast<std::byte*>(write.from.data()),  // NOLINT
              write.from.size());
    }
    post_waiting();
    return {};
  }

  void poll(std::vector<RemoteDone>& done, Deadline deadline) override {
    const std::size_t before = done.size();
    while (true) {
      std::ranges::move(ended_, std::back_inserter(done));
      ended_.clear();
      if (done.size() > before || under_way() == 0) return;
      const auto now = std::chrono::steady_clock::now();
      if (now >= deadline && polled_once_) {
        polled_once_ = false;
        return;
      }
      polled_once_ = true;
      take_completions(std::min(deadline, now + kWaitMax));
      post_waiting();
      end_lost();
    }
  }

  std::size_t under_way() const override {
    return operations_.size() - free_.size() + ended_.size();
  }
  std::size_t operations_max() const override { return operations_.size(); }
  bool is_usable() const override { return endpoint_ && clock_.now() < expires_; }
  void extend(Deadline expires) override { expires_ = expires; }
  bool is_local() const override { return false; }

 private:
  struct Operation {
    fi_context2 context{};  // The provider's; first, so that its address is the operation's.
    std::uint64_t tag = 0;
    std::uint64_t offset = 0;
    std::byte* bytes = nullptr;
    std::size_t size = 0;
    Deadline begun;
    bool is_busy = false;
  };

  Result<void> check(std::size_t operations, FabricAccess access) const {
    if (access != access_) return fail(Errc::kInvalid, "the ticket is not for this kind of access");
    if (!endpoint_) return fail(Errc::kUnavailable, trouble_);
    if (!is_usable()) return fail(Errc::kUnavailable, "the lease has expired");
    if (operations > free_.size()) {
      return fail(Errc::kUnavailable, "too many operations are under way");
    }
    return {};
  }

  Result<void> check_one(std::uint64_t offset, std::size_t size) const {
    TRY(check_range(offset, size));
    if (!stage_.empty() && size > kStageSlotBytes) {
      return fail(Errc::kInvalid, "an operation is larger than the stage's slots");
    }
    return {};
  }

  void enqueue(std::uint64_t tag, std::uint64_t offset, std::byte* bytes, std::size_t size) {
    Operation* const operation = free_.back();
    free_.pop_back();
    operation->tag = tag;
    operation->offset = offset;
    operation->bytes = bytes;
    operation->size = size;
    operation->begun = std::chrono::steady_clock::now();
    operation->is_busy = true;
    waiting_.push_back(operation);
  }

  std::byte* slot(const Operation& operation) {
    return stage_.data() +
           static_cast<std::size_t>(&operation - operations_.data()) * kStageSlotBytes;
  }

  ssize_t post(Operation& operation) {
    const bool is_staged = stage_region_ != nullptr;
    std::byte* const bytes = is_staged ? slot(operation) : operation.bytes;
    void* const description = is_staged ? fi_mr_desc(stage_region_.get()) : nullptr;
    const std::uint64_t at = address_ + operation.offset;
    if (access_ == FabricAccess::kRead) {
      return fi_read(endpoint_->endpoint.get(), bytes, operation.size, description, peer_, at, key_,
                     &operation);
    }
    if (is_staged) std::memcpy(bytes, operation.bytes, operation.size);
    // Done means that it is in the server's memory, not only on its way: publishing comes next.
    iovec local{.iov_base = bytes, .iov_len = operation.size};
    fi_rma_iov remote{};
    remote.addr = at;
    remote.len = operation.size;
    remote.key = key_;
    void* local_description = description;
    fi_msg_rma message{};
    message.msg_iov = &local;
    message.desc = &local_description;
    message.iov_count = 1;
    message.addr = peer_;
    message.rma_iov = &remote;
    message.rma_iov_count = 1;
    message.context = &operation;
    return fi_writemsg(endpoint_->endpoint.get(), &message, FI_DELIVERY_COMPLETE | FI_COMPLETION);
  }

  void post_waiting() {
    while (endpoint_ && !waiting_.empty()) {
      const ssize_t code = post(*waiting_.front());
      if (code == -FI_EAGAIN) return;
      if (code != 0) return break_down(ofi_text(code));
      waiting_.pop_front();
    }
  }

  /// Asks again and again instead of fi_cq_sread(), which in libfabric 1.17 may spin for ever.
  void take_completions(Deadline until) {
    if (!endpoint_) return;
    std::array<fi_cq_entry, kCompletionsAtOnce> entries{};
    fid_cq* const queue = endpoint_->completions.get();
    ssize_t got = fi_cq_read(queue, entries.data(), entries.size());
    for (auto nap = kNapMin; got == -FI_EAGAIN && waiting_.empty();
         nap = std::min(2 * nap, kNapMax)) {
      if (std::chrono::steady_clock::now() >= until) break;
      std::this_thread::sleep_for(nap);
      got = fi_cq_read(queue, entries.data(), entries.size());
    }
    for (ssize_t i = 0; i < got; ++i) {
      finish(*static_cast<Operation*>(entries.at(static_cast<std::size_t>(i)).op_context));
    }
    if (got == -FI_EAVAIL) {
      fi_cq_err_entry fault{};
      const bool is_known = fi_cq_readerr(queue, &fault, 0) > 0;
      break_down(is_known ? ofi_text(-fault.err) : "an operation failed");
    } else if (got < 0 && got != -FI_EAGAIN && got != -FI_EINTR) {
      break_down(ofi_text(got));
    }
  }

  void finish(Operation& operation) {
    if (stage_region_ && access_ == FabricAccess::kRead) {
      std::memcpy(operation.bytes, slot(operation), operation.size);
    }
    operation.is_busy = false;
    free_.push_back(&operation);
    ended_.push_back({.tag = operation.tag, .result = {}});
  }

  void end_lost() {
    if (!endpoint_) return;
    const auto now = std::chrono::steady_clock::now();
    for (const Operation& operation : operations_) {
      if (operation.is_busy && now - operation.begun > kOfiOperationMax) {
        return break_down("the store node does not answer");
      }
    }
  }

  /// The endpoint goes first, so that the provider writes to no buffer that is given back.
  void break_down(const std::string& why) {
    trouble_ = "the fabric broke: " + why;
    stage_region_.reset();
    endpoint_.reset();
    waiting_.clear();
    for (Operation& operation : operations_) {
      if (!operation.is_busy) continue;
      operation.is_busy = false;
      free_.push_back(&operation);
      ended_.push_back({.tag = operation.tag, .result = fail(Errc::kUnavailable, trouble_)});
    }
  }

  const std::uint64_t key_;
  const std::uint64_t address_;
  const FabricAccess access_;
  const fi_addr_t peer_;
  Deadline expires_;
  const Clock& clock_;
  std::string trouble_;
  std::optional<OfiEndpoint> endpoint_;  // None: broken.
  std::vector<std::byte> stage_;
  OfiRegion stage_region_;
  std::vector<Operation> operations_;
  std::vector<Operation*> free_;
  std::deque<Operation*> waiting_;  // Not accepted by the provider yet.
  std::vector<RemoteDone> ended_;
  bool polled_once_ = false;
};

}  // namespace

Result<std::unique_ptr<RemoteMemory>> open_ofi(const FabricTicket& ticket, FabricAccess access,
                                               Deadline expires, const Clock& clock) {
  const std::size_t colon = ticket.endpoint.find(':');
  if (colon == std::string::npos || colon == 0 || ticket.endpoint.size() > 256) {
    return fail(Errc::kInvalid, "the ticket's endpoint is malformed");
  }
  auto endpoint = TRY(OfiEndpoint::open({.provider = ticket.endpoint.substr(0, colon),
                                         .bind_address = "",
                                         .operations_max = kOperationsMax}));
  std::string address = ticket.endpoint.substr(colon + 1);
  std::string own_address = TRY(endpoint.name());
  if (address.size() != own_address.size()) {
    return fail(Errc::kInvalid, "the ticket's address is not one of its provider's");
  }
  fi_addr_t peer = FI_ADDR_UNSPEC;
  if (fi_av_insert(endpoint.addresses.get(), address.data(), 1, &peer, 0, nullptr) != 1) {
    return fail(Errc::kInvalid, "the provider does not take the ticket's address");
  }
  auto memory =
      std::make_unique<OfiMemory>(std::move(endpoint), peer, ticket, access, expires, clock);
  TRY(memory->set_up_stage());
  return memory;
}

}  // namespace samepage::imagestore
