#include "migrator/relay_target.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "migrator/arrivals.h"
#include "migrator/peer_link.h"
#include "migrator/relay_verdict.h"
#include "migrator/stretch_rebuilder.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kReturnPathReadBytes = 16U << 10U;
constexpr std::chrono::milliseconds kReturnPathLook{500};

Deadline after(std::chrono::microseconds wait) {
  return std::chrono::steady_clock::now() + wait;
}

}  // namespace

/// A pipeline. The caller of run() reads the source; workers rebuild batches and verify them; one
/// thread writes them to QEMU in order; one reads QEMU and writes its return path to the source.
/// They share the arrivals, the history, the link and the verdict.
class RelayTarget::Impl {
 public:
  Impl(const RelayOptions& options, RelayEnds ends, TargetPages pages, DigestKey page_key,
       const SessionSecret& secret)
      : options_(options),
        qemu_(ends.qemu),
        cache_(pages.cache),
        page_key_(page_key),
        mac_key_(stream_mac_key(secret)),
        verdict_(ends),
        link_(ends.peer),
        base_(pages.base),
        sieve_(std::move(pages.sieve)) {}

  Result<void> run() {
    CHECK(!std::exchange(ran_, true));
    Result<void> outcome = greet();
    if (outcome) outcome = pass();
    end(std::move(outcome));
    return verdict_.result();
  }

  void end(Result<void> outcome) {
    verdict_.end(std::move(outcome));
    arrivals_.close();
    if (greeted_) history_->close();
  }

  RelayCounters counters() const {
    return {.stream_bytes = stream_bytes_,
            .wire_bytes = link_.bytes(),
            .page_refs = page_refs_,
            .pages_resent = pages_resent_,
            .template_pages = template_pages()};
  }

  bool delivered() const { return delivered_; }

 private:
  Result<void> greet();
  Result<void> pass();
  Result<void> send_base();

  // The thread of run().
  Result<void> receive();
  Result<void> handle(PeerLink::Message message);
  Result<void> take_batch(PeerLink::Message message);
  Result<void> take_resend(std::span<const std::byte> body);
  Result<void> take_end(std::span<const std::byte> body);

  // The workers', and the receiver's for batches that pages have come for.
  void rebuild_batches();
  Result<void> rebuild(StretchRebuilder& rebuilder, Arrival& arrival);
  Result<void> verify(Arrival& arrival);
  Result<void> doubt(Arrival& arrival);

  // The writer's.
  void write_stream();
  Result<void> deliver_all();
  Result<void> deliver_end();
  Result<void> write_to_qemu(std::span<const std::byte> bytes);
  Result<void> send_ack(std::uint64_t sequence);
  std::uint64_t template_pages() const { return sieve_ ? sieve_->pages_kept() : 0; }

  // The thread of the return path.
  void forward_return_path();
  Result<bool> forward_answer(std::span<std::byte> buffer);

  const RelayOptions options_;
  ByteStream& qemu_;
  pagecache::PageCache& cache_;
  const DigestKey page_key_;
  const DigestKey mac_key_;
  RelayVerdict verdict_;
  PeerLink link_;
  BaseChoice base_;
  const std::unique_ptr<TemplateSieve> sieve_;  ///< The writer's; may be null.
  Arrivals arrivals_;
  SlabPool slabs_;
  std::optional<StreamHistory> history_;  ///< Set before greeted_.
  std::atomic<bool> greeted_{false};
  std::atomic<bool> delivered_{false};
  std::atomic<std::uint64_t> stream_bytes_{0};
  std::atomic<std::uint64_t> page_refs_{0};
  std::atomic<std::uint64_t> pages_resent_{0};
  bool ran_ = false;

  // The receiver's own, the writer's once the input has ended.
  ByteUnpacker unpacker_;
  std::uint64_t next_sequence_ = 0;
  std::uint64_t next_begin_ = 0;
  std::optional<StreamEnd> end_;
};

Result<void> RelayTarget::Impl::greet() {
  const Deadline deadline = after(options_.stall_max);
  const Hello ours{.history_bytes = options_.history_bytes_max};
  TRY(link_.send(MessageType::kHello, encode_hello(ours), deadline));
  const auto hello = TRY(link_.receive(deadline));
  if (hello.type != MessageType::kHello) return fail(Errc::kCorrupt, "the peer is no relay");
  const Hello theirs = TRY(decode_hello(hello.body));
  history_.emplace(std::min(ours.history_bytes, theirs.history_bytes));
  greeted_ = true;

  // Without a filter everything is sent in full, which is slower and not wrong.
  std::vector<std::byte> filter;
  if (cache_.size() > 0) filter = cache_.filter().serialize();
  if (filter.size() > body_bytes_max(MessageType::kFilter)) filter.clear();
  TRY(link_.send(MessageType::kFilter, filter, after(options_.stall_max)));
  if (base_.chosen()) return send_base();
  return {};
}

// After the end QEMU still reads what it was given; it closes when it has.
Result<void> RelayTarget::Impl::pass() {
  std::vector<std::jthread> threads;
  threads.emplace_back([this] { forward_return_path(); });
  threads.emplace_back([this] { write_stream(); });
  for (std::size_t i = 0; i < worker_count(options_); ++i) {
    threads.emplace_back([this] { rebuild_batches(); });
  }
  Result<void> received = receive();
  if (!received) end(received);
  return received;
}

Result<void> RelayTarget::Impl::send_base() {
  BasePages base{.checks = cache_.checks(*base_.chosen())};
  base.checks.resize(std::min(base.checks.size(), kBasePagesMax));
  BytePacker packer;
  return link_.send(MessageType::kBase, encode_base(base, packer), after(options_.stall_max));
}

// Behind the end only pages come that were asked for, and then the source leaves.
Result<void> RelayTarget::Impl::receive() {
  for (;;) {
    auto message = link_.receive(after(options_.quiet_max));
    if (message) {
      TRY(handle(*std::move(message)));
      continue;
    }
    if (!end_) return tl::unexpected(message.error());
    arrivals_.end_pages();
    return {};
  }
}

Result<void> RelayTarget::Impl::handle(PeerLink::Message message) {
  switch (message.type) {
    case MessageType::kBatch:
      return take_batch(std::move(message));
    case MessageType::kResend:
      return take_resend(message.body);
    case MessageType::kEnd:
      return take_end(message.body);
    default:
      return fail(Errc::kCorrupt, "the source sent a message that only a target sends");
  }
}

Result<void> RelayTarget::Impl::take_batch(PeerLink::Message message) {
  if (end_) return fail(Errc::kCorrupt, "a batch behind the end");
  auto arrival = std::make_shared<Arrival>();
  arrival->body = std::move(message.memory);
  const BatchBody body = TRY(decode_batch_header(arrival->body.bytes));
  const bool next = body.header.sequence == next_sequence_ && body.header.begin == next_begin_;
  if (!next) return fail(Errc::kCorrupt, "a batch out of order");
  arrival->header = body.header;
  arrival->rest = body.rest;
  arrival->is_pipe = body.is_pipe();
  arrival->stretch = arrival->is_pipe ? arrival->body : slabs_.take_bytes(body.header.size);
  arrival->stretch.bytes = arrival->stretch.bytes.last(body.header.size);
  TRY(link_.send(MessageType::kArrived, encode_arrived(next_sequence_), after(options_.stall_max)));
  ++next_sequence_;
  next_begin_ += body.header.size;
  return arrivals_.add(std::move(arrival));
}

void RelayTarget::Impl::rebuild_batches() {
  StretchRebuilder rebuilder({.cache = cache_, .history = *history_, .base = base_});
  while (const auto arrival = arrivals_.take()) {
    if (auto rebuilt = rebuild(rebuilder, *arrival); !rebuilt) return end(std::move(rebuilt));
  }
}

Result<void> RelayTarget::Impl::rebuild(StretchRebuilder& rebuilder, Arrival& arrival) {
  const bool chose_base = TRY(rebuilder.rebuild(arrival));
  page_refs_ += arrival.refs.size();
  if (chose_base) TRY(send_base());
  if (arrival.missing.empty()) return verify(arrival);
  const MissingPages missing{.sequence = arrival.header.sequence, .refs = arrival.missing};
  arrivals_.ask(arrival);
  return link_.send(MessageType::kMissing, encode_missing(missing), after(options_.stall_max));
}

Result<void> RelayTarget::Impl::verify(Arrival& arrival) {
  const auto& header = arrival.header;
  if (stretch_mac(mac_key_, header.sequence, arrival.stretch.bytes) == header.mac) {
    arrivals_.complete(arrival);
    return {};
  }
  // A page may have changed between its hash and its MAC; the source tells which.
  if (!arrival.doubted && !arrival.refs.empty()) return doubt(arrival);
  return fail(Errc::kCorrupt, "a batch that is not the source's stream");
}

Result<void> RelayTarget::Impl::doubt(Arrival& arrival) {
  DoubtedBatch doubt{.sequence = arrival.header.sequence, .digests = {}};
  for (const BatchGap& ref : arrival.refs) {
    const PageView page = arrival.stretch.bytes.subspan(ref.offset).first<kPageSize>();
    doubt.digests.push_back(shorten(digest_page(page, page_key_)));
  }
  arrival.doubted = true;
  arrivals_.ask(arrival);
  return link_.send(MessageType::kDoubt, encode_doubt(doubt), after(options_.stall_max));
}

Result<void> RelayTarget::Impl::take_resend(std::span<const std::byte> body) {
  const ResentPages resent = TRY(decode_resend(body, unpacker_));
  const auto arrival = TRY(arrivals_.asked(resent.sequence));
  const bool asked_for = arrival->doubted || resent.refs == arrival->missing;
  if (!asked_for || (!resent.refs.empty() && resent.refs.back() >= arrival->refs.size())) {
    return fail(Errc::kCorrupt, "other pages than asked for");
  }
  std::span<const std::byte> pages(resent.pages);
  for (const std::uint32_t ref : resent.refs) {
    std::byte* to = arrival->stretch.bytes.data() + arrival->refs[ref].offset;
    std::memcpy(to, pages.data(), kPageSize);
    pages = pages.subspan(kPageSize);
  }
  pages_resent_ += resent.refs.size();
  arrival->missing.clear();
  return verify(*arrival);
}

Result<void> RelayTarget::Impl::take_end(std::span<const std::byte> body) {
  if (end_) return fail(Errc::kCorrupt, "a second end");
  end_ = TRY(decode_end(body));
  const bool is_the_end = end_->sequence == next_sequence_ && end_->stream_bytes == next_begin_ &&
                          end_mac(mac_key_, *end_) == end_->mac;
  if (!is_the_end) return fail(Errc::kCorrupt, "an end that is not that of the source's stream");
  arrivals_.end_input();
  return {};
}

void RelayTarget::Impl::write_stream() {
  if (auto written = deliver_all(); !written) end(std::move(written));
}

Result<void> RelayTarget::Impl::deliver_all() {
  while (const auto arrival = TRY(arrivals_.pop(options_.stall_max))) {
    const auto& stretch = arrival->stretch;
    arrival->is_pipe ? history_->skip(stretch.bytes.size()) : history_->add(stretch);
    const auto written =
        sieve_ ? sieve_->pass(stretch.bytes, [this](auto bytes) { return write_to_qemu(bytes); })
               : write_to_qemu(stretch.bytes);
    if (!written) return written;
    stream_bytes_ += stretch.bytes.size();
    TRY(send_ack(arrival->header.sequence));
  }
  if (verdict_.ended()) return {};
  return deliver_end();
}

Result<void> RelayTarget::Impl::write_to_qemu(std::span<const std::byte> bytes) {
  auto written = qemu_.write_all(bytes, after(options_.stall_max));
  if (!written) return tl::unexpected(Error(written.error()).within("write to QEMU"));
  return {};
}

Result<void> RelayTarget::Impl::deliver_end() {
  if (sieve_) TRY(sieve_->finish([this](auto bytes) { return write_to_qemu(bytes); }));
  auto finished = qemu_.finish_writing();
  // QEMU may have closed first: it needs no more than what it has read.
  if (!finished && finished.error().code() != Errc::kUnavailable) return finished;
  delivered_ = true;
  return send_ack(end_->sequence);
}

Result<void> RelayTarget::Impl::send_ack(std::uint64_t sequence) {
  const Ack ack{.sequence = sequence, .template_pages = template_pages()};
  return link_.send(MessageType::kAck, encode_ack(ack), after(options_.stall_max));
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
                                                         RelayEnds ends, TargetPages pages,
                                                         const SharingDomain& domain,
                                                         const SessionSecret& secret) {
  TRY(check(options));
  return std::unique_ptr<RelayTarget>(
      new RelayTarget(std::make_unique<Impl>(options, ends, std::move(pages), domain.key, secret)));
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
