#include "migrator/relay_source.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "fingerprinter/bloom_filter.h"
#include "migrator/batch.h"
#include "migrator/peer_link.h"
#include "migrator/relay_verdict.h"
#include "migrator/resend_window.h"
#include "migrator/stream_parser.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kNotEnded = UINT64_MAX;

Deadline after(std::chrono::microseconds wait) {
  return std::chrono::steady_clock::now() + wait;
}

struct AtomicCounters {
  std::atomic<std::uint64_t> stream_bytes{0};
  std::atomic<std::uint64_t> page_refs{0};
  std::atomic<std::uint64_t> page_literals{0};
  std::atomic<std::uint64_t> zero_pages{0};
  std::atomic<std::uint64_t> pages_resent{0};
};

}  // namespace

/// Two threads. The caller of run() owns the parser, the batch under way and the MAC: it reads
/// QEMU, and writes batches to the target. The other one reads the target: it writes QEMU's return
/// path and resends pages. They share the window, the link and the verdict.
class RelaySource::Impl {
 public:
  Impl(const RelayOptions& options, RelayEnds ends, const SharingDomain& domain,
       const SessionSecret& secret)
      : options_(options),
        qemu_(ends.qemu),
        domain_(domain),
        verdict_(ends),
        link_(ends.peer),
        window_({.batches_max = options.batches_in_flight_max,
                 .wire_bytes_max = options.wire_bytes_in_flight_max}),
        mac_(stream_mac_key(secret)),
        builder_(options.zstd_level),
        resend_packer_(options.zstd_level) {}

  Result<void> run() {
    CHECK(!std::exchange(ran_, true));
    Result<void> outcome = greet();
    std::thread replies;
    if (outcome) {
      replies = std::thread([this] { receive_replies(); });
      outcome = relay();
    }
    end(std::move(outcome));
    if (replies.joinable()) replies.join();
    return verdict_.result();
  }

  void end(Result<void> outcome) {
    verdict_.end(std::move(outcome));
    window_.close();
  }

  RelayCounters counters() const {
    return {.stream_bytes = counters_.stream_bytes,
            .wire_bytes = link_.bytes(),
            .page_refs = counters_.page_refs,
            .page_literals = counters_.page_literals,
            .zero_pages = counters_.zero_pages,
            .pages_resent = counters_.pages_resent};
  }

  bool delivered() const { return delivered_; }

 private:
  Result<void> greet();
  Result<void> take_filter(std::span<const std::byte> body);

  // The thread of run().
  Result<void> relay();
  Result<void> fill_batch();
  void tokenize();
  void add(const StreamToken& token);
  void drain();
  Result<void> send_batch();
  Result<void> send_end();

  // The thread of the replies.
  void receive_replies();
  Result<void> handle_reply(const PeerLink::Message& message);
  Result<void> resend(std::span<const std::byte> body);
  Result<void> acknowledge(std::span<const std::byte> body);
  Result<void> return_path(std::span<const std::byte> body);

  const RelayOptions options_;
  ByteStream& qemu_;
  const SharingDomain domain_;
  RelayVerdict verdict_;
  PeerLink link_;
  ResendWindow window_;
  AtomicCounters counters_;
  std::atomic<bool> delivered_{false};
  std::atomic<std::uint64_t> end_sequence_{kNotEnded};
  bool ran_ = false;

  std::optional<fingerprinter::BloomFilter> filter_;
  StreamParser parser_;
  StreamMac mac_;
  BatchBuilder builder_;
  std::vector<std::byte> stream_;  ///< Of the batch under way: [0, filled_) was read from QEMU,
  std::size_t filled_ = 0;         ///< [0, parsed_) is in the builder.
  std::size_t parsed_ = 0;
  std::uint64_t sequence_ = 0;
  bool qemu_ended_ = false;

  BytePacker resend_packer_;
};

// The filter comes before the first batch: pages that go out before it cost their full size.
Result<void> RelaySource::Impl::greet() {
  const Deadline deadline = after(options_.stall_max);
  TRY(link_.send(MessageType::kHello, encode_hello(), deadline));
  const auto hello = TRY(link_.receive(deadline));
  if (hello.type != MessageType::kHello) return fail(Errc::kCorrupt, "the peer is no relay");
  TRY(check_hello(hello.body));
  const auto filter = TRY(link_.receive(deadline));
  if (filter.type != MessageType::kFilter) return fail(Errc::kCorrupt, "the peer sent no filter");
  return take_filter(filter.body);
}

Result<void> RelaySource::Impl::take_filter(std::span<const std::byte> body) {
  if (body.empty()) return {};
  filter_ = TRY(fingerprinter::BloomFilter::parse(body, body_bytes_max(MessageType::kFilter)));
  return {};
}

Result<void> RelaySource::Impl::relay() {
  stream_.resize(kBatchStreamBytesMax);
  while (!qemu_ended_) {
    TRY(fill_batch());
    TRY(send_batch());
  }
  return send_end();
}

// Until the batch is full, QEMU is silent for a moment, or has closed its stream. The front of a
// record is of no use to the other QEMU, so its rest is waited for a little longer; but not for
// long, because what looks like a record may be something else that has an end there.
Result<void> RelaySource::Impl::fill_batch() {
  Deadline due = after(options_.batch_age_max);
  while (filled_ < stream_.size()) {
    const bool waiting = filled_ == 0;
    Deadline deadline = waiting ? after(options_.quiet_max) : due;
    if (parsed_ > 0) deadline = std::min(due, after(options_.flush_after));

    const auto size = qemu_.read_some(std::span(stream_).subspan(filled_), deadline);
    if (!size && size.error().code() == Errc::kTimedOut && !waiting) {
      if (parsed_ == 0) drain();
      return {};
    }
    if (!size) return tl::unexpected(Error(size.error()).within("read from QEMU"));
    qemu_ended_ = *size == 0;
    if (qemu_ended_) {
      drain();
      return {};
    }
    if (waiting) due = after(options_.batch_age_max);
    filled_ += *size;
    tokenize();
  }
  return {};
}

void RelaySource::Impl::tokenize() {
  const auto read = std::span<const std::byte>(stream_).first(filled_);
  while (const auto token = parser_.next(read.subspan(parsed_))) add(*token);
}

void RelaySource::Impl::add(const StreamToken& token) {
  parsed_ += token.bytes.size();
  counters_.stream_bytes += token.bytes.size();
  if (token.kind == StreamToken::Kind::kZeroPage) {
    ++counters_.zero_pages;
    return builder_.add_zero_page(token);
  }
  if (token.kind == StreamToken::Kind::kBytes) return builder_.add_literal(token.bytes);

  if (filter_) {
    const PageHash hash = hash_page(token.page(), domain_.seed);
    if (filter_->lookup(hash)) {
      ++counters_.page_refs;
      return builder_.add_page_ref(token, {hash, digest_page(token.page(), domain_.key)});
    }
  }
  ++counters_.page_literals;
  builder_.add_literal(token.bytes);
}

void RelaySource::Impl::drain() {
  const auto rest = std::span<const std::byte>(stream_).subspan(parsed_, filled_ - parsed_);
  if (!rest.empty()) add(parser_.drain(rest));
}

Result<void> RelaySource::Impl::send_batch() {
  if (parsed_ == 0) return {};
  mac_.update(std::span<const std::byte>(stream_).first(parsed_));
  const auto offsets = builder_.ref_offsets();
  ResendWindow::Entry entry;
  entry.sequence = sequence_;
  entry.ref_offsets.assign(offsets.begin(), offsets.end());
  const auto body = builder_.finish(sequence_, mac_.current());
  ++sequence_;

  std::vector<std::byte> next = window_.take_buffer();
  next.resize(kBatchStreamBytesMax);
  filled_ -= parsed_;
  std::memcpy(next.data(), stream_.data() + parsed_, filled_);
  parsed_ = 0;
  entry.stream = std::exchange(stream_, std::move(next));
  entry.wire_bytes = body.size();

  const Deadline deadline = after(options_.stall_max);
  TRY(window_.add(std::move(entry), deadline));
  return link_.send(MessageType::kBatch, body, deadline);
}

Result<void> RelaySource::Impl::send_end() {
  const Deadline deadline = after(options_.stall_max);
  const auto body = encode_end(
      {.sequence = sequence_, .stream_bytes = counters_.stream_bytes, .mac = mac_.current()});
  ResendWindow::Entry entry;
  entry.sequence = sequence_;
  entry.wire_bytes = body.size();
  TRY(window_.add(std::move(entry), deadline));
  end_sequence_ = sequence_;
  TRY(link_.send(MessageType::kEnd, body, deadline));
  return window_.wait_until_empty(after(options_.stall_max));
}

void RelaySource::Impl::receive_replies() {
  while (!delivered_) {
    const auto message = link_.receive(after(options_.quiet_max));
    if (!message) return end(tl::unexpected(message.error()));
    const auto handled = handle_reply(*message);
    if (!handled) return end(handled);
  }
}

Result<void> RelaySource::Impl::handle_reply(const PeerLink::Message& message) {
  switch (message.type) {
    case MessageType::kMissing:
      return resend(message.body);
    case MessageType::kAck:
      return acknowledge(message.body);
    case MessageType::kReturnPath:
      return return_path(message.body);
    default:
      return fail(Errc::kCorrupt, "the target sent a message that only a source sends");
  }
}

Result<void> RelaySource::Impl::resend(std::span<const std::byte> body) {
  const MissingPages missing = TRY(decode_missing(body));
  const ResentPages pages = TRY(window_.pages(missing));
  counters_.pages_resent += missing.refs.size();
  return link_.send(MessageType::kResend, encode_resend(pages, resend_packer_),
                    after(options_.stall_max));
}

Result<void> RelaySource::Impl::acknowledge(std::span<const std::byte> body) {
  const std::uint64_t sequence = TRY(decode_ack(body));
  TRY(window_.acknowledge(sequence));
  delivered_ = sequence == end_sequence_;
  return {};
}

// QEMU closes before the last answers to it arrive when it does not need them.
Result<void> RelaySource::Impl::return_path(std::span<const std::byte> body) {
  const auto written =
      body.empty() ? qemu_.finish_writing() : qemu_.write_all(body, after(options_.stall_max));
  if (!written && written.error().code() == Errc::kTimedOut) return written;
  return {};
}

Result<std::unique_ptr<RelaySource>> RelaySource::create(const RelayOptions& options,
                                                         RelayEnds ends,
                                                         const SharingDomain& domain,
                                                         const SessionSecret& secret) {
  TRY(check(options));
  return std::unique_ptr<RelaySource>(
      new RelaySource(std::make_unique<Impl>(options, ends, domain, secret)));
}

RelaySource::RelaySource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RelaySource::~RelaySource() = default;

Result<void> RelaySource::run() {
  return impl_->run();
}
void RelaySource::stop() {
  impl_->end(fail(Errc::kUnavailable, "the relay was stopped"));
}
RelayCounters RelaySource::counters() const {
  return impl_->counters();
}
bool RelaySource::delivered() const {
  return impl_->delivered();
}

}  // namespace samepage::migrator
