#include "migrator/relay_target.h"

#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "migrator/batch.h"
#include "migrator/peer_link.h"
#include "migrator/relay_verdict.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kReturnPathReadBytes = 16U << 10U;
constexpr std::chrono::milliseconds kReturnPathLook{500};

Deadline after(std::chrono::microseconds wait) {
  return std::chrono::steady_clock::now() + wait;
}

struct AtomicCounters {
  std::atomic<std::uint64_t> stream_bytes{0};
  std::atomic<std::uint64_t> page_refs{0};
  std::atomic<std::uint64_t> pages_resent{0};
};

/// A batch that waits for pages, or behind one that does.
struct HeldBatch {
  Batch batch;
  std::vector<std::uint32_t> missing;  ///< Holes that the source was asked to fill.
};

}  // namespace

/// Two threads. The caller of run() owns the batches and the MAC: it reads the source and writes
/// QEMU. The other one reads QEMU and writes its return path to the source. They share the link and
/// the verdict.
class RelayTarget::Impl {
 public:
  Impl(const RelayOptions& options, RelayEnds ends, pagecache::PageCache& cache, DigestKey key,
       const SessionSecret& secret)
      : options_(options),
        qemu_(ends.qemu),
        cache_(cache),
        key_(key),
        verdict_(ends),
        link_(ends.peer),
        mac_(stream_mac_key(secret)) {}

  Result<void> run() {
    CHECK(!std::exchange(ran_, true));
    Result<void> outcome = greet();
    std::thread answers;
    if (outcome) {
      answers = std::thread([this] { forward_return_path(); });
      outcome = relay();
    }
    // After the end QEMU still reads what it was given; it closes when it has.
    if (!outcome) end(std::move(outcome));
    if (answers.joinable()) answers.join();
    end({});
    return verdict_.result();
  }

  void end(Result<void> outcome) { verdict_.end(std::move(outcome)); }

  RelayCounters counters() const {
    return {.stream_bytes = counters_.stream_bytes,
            .wire_bytes = link_.bytes(),
            .page_refs = counters_.page_refs,
            .pages_resent = counters_.pages_resent};
  }

  bool delivered() const { return delivered_; }

 private:
  Result<void> greet();

  // The thread of run().
  Result<void> relay();
  Result<void> handle(const PeerLink::Message& message);
  Result<void> take_batch(std::span<const std::byte> body);
  void fill_holes(HeldBatch& held);
  Result<void> take_resend(std::span<const std::byte> body);
  Result<void> fill_missing(HeldBatch& held, std::span<const std::byte> pages);
  Result<void> take_end(std::span<const std::byte> body);
  Result<void> deliver();
  Result<void> deliver_batch(const Batch& batch);
  Result<void> deliver_end();
  Result<void> send_ack(std::uint64_t sequence);

  // The thread of the return path.
  void forward_return_path();
  Result<bool> forward_answer(std::span<std::byte> buffer);

  const RelayOptions options_;
  ByteStream& qemu_;
  pagecache::PageCache& cache_;
  const DigestKey key_;
  RelayVerdict verdict_;
  PeerLink link_;
  AtomicCounters counters_;
  std::atomic<bool> delivered_{false};
  bool ran_ = false;

  ByteUnpacker unpacker_;
  StreamMac mac_;
  std::deque<HeldBatch> held_;
  std::uint64_t next_sequence_ = 0;
  std::optional<StreamEnd> end_;
};

Result<void> RelayTarget::Impl::greet() {
  const Deadline deadline = after(options_.stall_max);
  TRY(link_.send(MessageType::kHello, encode_hello(), deadline));
  const auto hello = TRY(link_.receive(deadline));
  if (hello.type != MessageType::kHello) return fail(Errc::kCorrupt, "the peer is no relay");
  TRY(check_hello(hello.body));

  // Without a filter everything is sent in full, which is slower and not wrong.
  std::vector<std::byte> filter;
  if (cache_.size() > 0) filter = cache_.filter().serialize();
  if (filter.size() > body_bytes_max(MessageType::kFilter)) filter.clear();
  return link_.send(MessageType::kFilter, filter, after(options_.stall_max));
}

Result<void> RelayTarget::Impl::relay() {
  while (!delivered_) {
    const auto wait = held_.empty() ? options_.quiet_max : options_.stall_max;
    const auto message = TRY(link_.receive(after(wait)));
    TRY(handle(message));
    TRY(deliver());
  }
  return {};
}

Result<void> RelayTarget::Impl::handle(const PeerLink::Message& message) {
  switch (message.type) {
    case MessageType::kBatch:
      return take_batch(message.body);
    case MessageType::kResend:
      return take_resend(message.body);
    case MessageType::kEnd:
      return take_end(message.body);
    default:
      return fail(Errc::kCorrupt, "the source sent a message that only a target sends");
  }
}

Result<void> RelayTarget::Impl::take_batch(std::span<const std::byte> body) {
  if (end_) return fail(Errc::kCorrupt, "a batch behind the end");
  if (held_.size() == kBatchesInFlightMax) return fail(Errc::kCorrupt, "too many batches at once");
  HeldBatch held{.batch = TRY(decode_batch(body, unpacker_)), .missing = {}};
  if (held.batch.sequence != next_sequence_) return fail(Errc::kCorrupt, "a batch out of order");
  ++next_sequence_;
  fill_holes(held);
  if (!held.missing.empty()) {
    const MissingPages missing{.sequence = held.batch.sequence, .refs = held.missing};
    TRY(link_.send(MessageType::kMissing, encode_missing(missing), after(options_.stall_max)));
  }
  held_.push_back(std::move(held));
  return {};
}

void RelayTarget::Impl::fill_holes(HeldBatch& held) {
  const std::span<std::byte> stream(held.batch.stream);
  for (std::uint32_t i = 0; i < held.batch.holes.size(); ++i) {
    const auto& [offset, ref] = held.batch.holes[i];
    const PageBuffer hole = stream.subspan(offset).first<kPageSize>();
    if (!cache_.find(ref.digest, ref.hash, hole)) held.missing.push_back(i);
  }
  counters_.page_refs += held.batch.holes.size();
}

Result<void> RelayTarget::Impl::take_resend(std::span<const std::byte> body) {
  const ResentPages resent = TRY(decode_resend(body, unpacker_));
  for (HeldBatch& held : held_) {
    if (held.batch.sequence == resent.sequence) return fill_missing(held, resent.pages);
  }
  return fail(Errc::kCorrupt, "pages for a batch that waits for none");
}

Result<void> RelayTarget::Impl::fill_missing(HeldBatch& held, std::span<const std::byte> pages) {
  if (pages.size() != held.missing.size() * kPageSize) {
    return fail(Errc::kCorrupt, "other pages than asked for");
  }
  for (const std::uint32_t number : held.missing) {
    const PageView page = pages.first<kPageSize>();
    pages = pages.subspan(kPageSize);
    const Batch::Hole& hole = held.batch.holes[number];
    if (digest_page(page, key_) != hole.ref.digest) {
      return fail(Errc::kCorrupt, "a resent page that does not match its digest");
    }
    std::memcpy(held.batch.stream.data() + hole.offset, page.data(), kPageSize);
  }
  counters_.pages_resent += held.missing.size();
  held.missing.clear();
  return {};
}

Result<void> RelayTarget::Impl::take_end(std::span<const std::byte> body) {
  if (end_) return fail(Errc::kCorrupt, "a second end");
  end_ = TRY(decode_end(body));
  if (end_->sequence != next_sequence_) return fail(Errc::kCorrupt, "an end out of order");
  return {};
}

Result<void> RelayTarget::Impl::deliver() {
  while (!held_.empty() && held_.front().missing.empty()) {
    TRY(deliver_batch(held_.front().batch));
    held_.pop_front();
  }
  if (end_ && held_.empty()) return deliver_end();
  return {};
}

Result<void> RelayTarget::Impl::deliver_batch(const Batch& batch) {
  mac_.update(batch.stream);
  if (mac_.current() != batch.mac) {
    return fail(Errc::kCorrupt, "a batch that is not the source's stream");
  }
  const auto written = qemu_.write_all(batch.stream, after(options_.stall_max));
  if (!written) return tl::unexpected(Error(written.error()).within("write to QEMU"));
  counters_.stream_bytes += batch.stream.size();
  return send_ack(batch.sequence);
}

Result<void> RelayTarget::Impl::deliver_end() {
  if (end_->stream_bytes != counters_.stream_bytes || end_->mac != mac_.current()) {
    return fail(Errc::kCorrupt, "an end that is not that of the source's stream");
  }
  auto finished = qemu_.finish_writing();
  // QEMU may have closed first: it needs no more than what it has read.
  if (!finished && finished.error().code() != Errc::kUnavailable) return finished;
  delivered_ = true;
  return send_ack(end_->sequence);
}

Result<void> RelayTarget::Impl::send_ack(std::uint64_t sequence) {
  return link_.send(MessageType::kAck, encode_ack(sequence), after(options_.stall_max));
}

void RelayTarget::Impl::forward_return_path() {
  std::array<std::byte, kReturnPathReadBytes> buffer{};
  std::optional<Deadline> last_look;
  while (!verdict_.ended()) {
    if (delivered_ && !last_look) last_look = after(options_.stall_max);
    if (last_look && std::chrono::steady_clock::now() >= *last_look) return;
    const auto goes_on = forward_answer(buffer);
    // Once all is delivered the source has no use for more answers and may be gone.
    if (!goes_on && !delivered_) end(tl::unexpected(goes_on.error()));
    if (!goes_on || !*goes_on) return;
  }
}

Result<bool> RelayTarget::Impl::forward_answer(std::span<std::byte> buffer) {
  const auto size = qemu_.read_some(buffer, after(kReturnPathLook));
  if (!size && size.error().code() == Errc::kTimedOut) return true;
  if (!size) return tl::unexpected(Error(size.error()).within("read from QEMU"));
  TRY(link_.send(MessageType::kReturnPath, buffer.first(*size), after(options_.stall_max)));
  return *size > 0;
}

Result<std::unique_ptr<RelayTarget>> RelayTarget::create(const RelayOptions& options,
                                                         RelayEnds ends,
                                                         pagecache::PageCache& cache,
                                                         const SharingDomain& domain,
                                                         const SessionSecret& secret) {
  TRY(check(options));
  return std::unique_ptr<RelayTarget>(
      new RelayTarget(std::make_unique<Impl>(options, ends, cache, domain.key, secret)));
}

RelayTarget::RelayTarget(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RelayTarget::~RelayTarget() = default;

Result<void> RelayTarget::run() {
  return impl_->run();
}
void RelayTarget::stop() {
  impl_->end(fail(Errc::kUnavailable, "the relay was stopped"));
}
RelayCounters RelayTarget::counters() const {
  return impl_->counters();
}
bool RelayTarget::delivered() const {
  return impl_->delivered();
}

}  // namespace samepage::migrator
