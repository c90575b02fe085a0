#include "migrator/relay_source.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "migrator/batch_pace.h"
#include "migrator/compression_choice.h"
#include "migrator/ordered_stage.h"
#include "migrator/peer_link.h"
#include "migrator/relay_verdict.h"
#include "migrator/resend_window.h"
#include "migrator/stretch_encoder.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kNotEnded = UINT64_MAX;

Deadline after(std::chrono::microseconds wait) {
  return std::chrono::steady_clock::now() + wait;
}

}  // namespace

/// A pipeline. The caller of run() cuts QEMU's stream into stretches; workers encode them as
/// batches; one thread sends these in order, as the window allows; one reads the target: it writes
/// QEMU's return path and resends pages. They share the stage between, the window, what the target
/// is known to have, the link and the verdict.
class RelaySource::Impl {
 public:
  Impl(const RelayOptions& options, RelayEnds ends, const SharingDomain& domain,
       const SessionSecret& secret, StretchSink* sink)
      : options_(options),
        qemu_(ends.qemu),
        passes_(ends.passes),
        domain_(domain),
        mac_key_(stream_mac_key(secret)),
        verdict_(ends),
        link_(ends.peer),
        window_({.batches_max = options.batches_in_flight_max,
                 .wire_bytes_max = options.wire_bytes_in_flight_max},
                domain.key),
        stage_(worker_count(options) + 2),
        compression_(options.zstd_level_max),
        sink_(sink) {}

  Result<void> run() {
    CHECK(!std::exchange(ran_, true));
    if (auto greeted = greet(); !greeted) {
      end(std::move(greeted));
      return verdict_.result();
    }
    {
      std::vector<std::jthread> threads;
      threads.emplace_back([this] { receive_replies(); });
      threads.emplace_back([this] { end(send_batches()); });
      for (std::size_t i = 0; i < worker_count(options_); ++i) {
        threads.emplace_back([this] { encode_stretches(); });
      }
      if (auto cut = cut_stream(); !cut) end(std::move(cut));
    }
    return verdict_.result();
  }

  void end(Result<void> outcome) {
    verdict_.end(std::move(outcome));
    window_.close();
    stage_.close();
  }

  RelayCounters counters() const {
    RelayCounters counters{.stream_bytes = stream_bytes_,
                           .wire_bytes = link_.bytes(),
                           .pages_resent = pages_resent_,
                           .template_pages = template_pages_};
    if (!greeted_) return counters;
    counters.page_refs = known_->page_refs;
    counters.page_deltas = known_->page_deltas;
    counters.page_literals = known_->page_literals;
    counters.zero_pages = known_->zero_pages;
    return counters;
  }

  bool delivered() const { return delivered_; }

 private:
  struct Job {
    CutStretch stretch;
    Effort effort = Effort::kLookUp;
  };
  using Stage = OrderedStage<Job, EncodedStretch>;

  Result<void> greet();
  Result<void> take_filter(std::span<const std::byte> body);

  Result<void> cut_stream();
  Effort next_effort();
  void encode_stretches();
  Result<void> send_batches();
  Result<void> send(EncodedStretch encoded);
  Result<void> send_end();

  // The thread of the replies.
  void receive_replies();
  Result<void> handle_reply(const PeerLink::Message& message);
  Result<void> resend_missing(std::span<const std::byte> body);
  Result<void> resend_differing(std::span<const std::byte> body);
  Result<void> resend(const ResentPages& pages);
  Result<void> take_base(std::span<const std::byte> body);
  Result<void> acknowledge(std::span<const std::byte> body);
  Result<void> return_path(std::span<const std::byte> body);

  const RelayOptions options_;
  ByteStream& qemu_;
  PassWatch* const passes_;
  const SharingDomain domain_;
  const DigestKey mac_key_;
  RelayVerdict verdict_;
  PeerLink link_;
  ResendWindow window_;
  Stage stage_;
  CompressionChoice compression_;
  StretchSink* const sink_;
  BatchPace pace_;
  SlabPool slabs_;
  std::optional<TargetKnowledge> known_;  ///< Set before greeted_.
  std::atomic<bool> greeted_{false};
  std::atomic<bool> delivered_{false};
  std::atomic<std::uint64_t> end_sequence_{kNotEnded};
  std::atomic<std::uint64_t> stream_bytes_{0};
  std::atomic<std::uint64_t> pages_resent_{0};
  std::atomic<std::uint64_t> template_pages_{0};
  std::uint64_t batches_ = 0;  ///< Of the whole stream; set before the stage's input ends.
  bool ran_ = false;

  BytePacker resend_packer_;
};

// The filter comes before the first batch: pages that go out before it cost their full size.
Result<void> RelaySource::Impl::greet() {
  const Deadline deadline = after(options_.stall_max);
  const Hello ours{.history_bytes = options_.history_bytes_max};
  TRY(link_.send(MessageType::kHello, encode_hello(ours), deadline));
  const auto hello = TRY(link_.receive(deadline));
  if (hello.type != MessageType::kHello) return fail(Errc::kCorrupt, "the peer is no relay");
  const Hello theirs = TRY(decode_hello(hello.body));
  known_.emplace(domain_, mac_key_, std::min(ours.history_bytes, theirs.history_bytes));
  const auto filter = TRY(link_.receive(deadline));
  if (filter.type != MessageType::kFilter) return fail(Errc::kCorrupt, "the peer sent no filter");
  TRY(take_filter(filter.body));
  greeted_ = true;
  return {};
}

Result<void> RelaySource::Impl::take_filter(std::span<const std::byte> body) {
  if (body.empty()) return {};
  known_->filter =
      TRY(fingerprinter::BloomFilter::parse(body, body_bytes_max(MessageType::kFilter)));
  return {};
}

Result<void> RelaySource::Impl::cut_stream() {
  RelayOptions options = options_;
  options.history_bytes_max = known_->history.reach();
  StreamCutter cutter(qemu_, slabs_, options, passes_);
  while (auto stretch = TRY(cutter.next(pace_.batch_bytes()))) {
    stream_bytes_ = cutter.stream_bytes();
    const Effort effort = next_effort();
    if (effort == Effort::kPipe) {
      known_->history.skip(stretch->bytes.bytes.size());
    } else {
      known_->history.add(stretch->bytes);
    }
    if (sink_ != nullptr) sink_->saw(*stretch);
    // Whoever closed it has said why.
    if (!stage_.push({.stretch = std::move(*stretch), .effort = effort})) return {};
  }
  batches_ = cutter.stretches();
  stage_.end_input();
  return {};
}

// Where next to nothing is found and compressing takes longer than sending, everything passes as
// through a pipe.
Effort RelaySource::Impl::next_effort() {
  const bool is_off = compression_.is_off();
  const bool is_fast = is_off || pace_.batch_bytes() == kBatchStreamBytesMax;
  if (passes_ != nullptr) passes_->speed_is_true(is_fast && known_->hits.is_rare());
  if (known_->hits.look()) return Effort::kLookUp;
  return is_off ? Effort::kPipe : Effort::kPack;
}

void RelaySource::Impl::encode_stretches() {
  StretchEncoder encoder(*known_);
  while (auto ticket = stage_.take()) {
    const int level = ticket->job.effort == Effort::kPipe ? kPackNothing : compression_.level();
    EncodedStretch encoded =
        encoder.encode(std::move(ticket->job.stretch), ticket->job.effort, level);
    const auto load = stage_.load();
    compression_.saw({.level = level,
                      .literal_bytes = encoded.batch.literal_bytes,
                      .paid = encoded.batch.packed,
                      .encoders_late = load.waiting > 1,
                      .link_late = load.done > 1,
                      .little_found = known_->hits.is_rare()},
                     std::chrono::steady_clock::now());
    stage_.finish(ticket->number, std::move(encoded));
  }
}

Result<void> RelaySource::Impl::send_batches() {
  while (auto encoded = stage_.pop()) TRY(send(*std::move(encoded)));
  return send_end();
}

Result<void> RelaySource::Impl::send(EncodedStretch encoded) {
  ResendWindow::Entry entry{.sequence = encoded.header.sequence,
                            .wire_bytes = encoded.batch.size(),
                            .stretch = std::move(encoded.stretch.bytes),
                            .ref_offsets = std::move(encoded.batch.ref_offsets)};
  const Deadline deadline = after(options_.stall_max);
  TRY(window_.add(std::move(entry), deadline));
  pace_.sent(encoded.header.size, encoded.batch.size(), window_.link_bytes_per_second());
  return link_.send(MessageType::kBatch, encoded.batch.head, encoded.batch.tail.bytes, deadline);
}

Result<void> RelaySource::Impl::send_end() {
  const Deadline deadline = after(options_.stall_max);
  StreamEnd end{.sequence = batches_, .stream_bytes = stream_bytes_, .mac = {}};
  end.mac = end_mac(mac_key_, end);
  const auto body = encode_end(end);
  ResendWindow::Entry entry;
  entry.sequence = end.sequence;
  entry.wire_bytes = body.size();
  TRY(window_.add(std::move(entry), deadline));
  end_sequence_ = end.sequence;
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
      return resend_missing(message.body);
    case MessageType::kDoubt:
      return resend_differing(message.body);
    case MessageType::kBase:
      return take_base(message.body);
    case MessageType::kAck:
      return acknowledge(message.body);
    case MessageType::kArrived:
      return window_.arrived(TRY(decode_arrived(message.body)));
    case MessageType::kReturnPath:
      return return_path(message.body);
    default:
      return fail(Errc::kCorrupt, "the target sent a message that only a source sends");
  }
}

Result<void> RelaySource::Impl::resend_missing(std::span<const std::byte> body) {
  const MissingPages missing = TRY(decode_missing(body));
  return resend(TRY(window_.pages(missing)));
}

Result<void> RelaySource::Impl::resend_differing(std::span<const std::byte> body) {
  const DoubtedBatch doubt = TRY(decode_doubt(body));
  return resend(TRY(window_.differing(doubt)));
}

Result<void> RelaySource::Impl::resend(const ResentPages& pages) {
  pages_resent_ += pages.refs.size();
  return link_.send(MessageType::kResend, encode_resend(pages, resend_packer_),
                    after(options_.stall_max));
}

Result<void> RelaySource::Impl::take_base(std::span<const std::byte> body) {
  if (known_->base_owner) return fail(Errc::kCorrupt, "a second base");
  ByteUnpacker unpacker;
  known_->base_owner = std::make_unique<const BasePages>(TRY(decode_base(body, unpacker)));
  known_->base = known_->base_owner.get();
  return {};
}

Result<void> RelaySource::Impl::acknowledge(std::span<const std::byte> body) {
  const Ack ack = TRY(decode_ack(body));
  const std::uint64_t bytes = TRY(window_.acknowledge(ack.sequence));
  if (passes_ != nullptr) passes_->delivered(bytes, window_.link_bytes());
  template_pages_ = ack.template_pages;
  delivered_ = ack.sequence == end_sequence_;
  return {};
}

// QEMU closes before the last answers to it arrive when it does not need them.
Result<void> RelaySource::Impl::return_path(std::span<const std::byte> body) {
  auto written =
      body.empty() ? qemu_.finish_writing() : qemu_.write_all(body, after(options_.stall_max));
  if (!written && written.error().code() == Errc::kTimedOut) return written;
  return {};
}

Result<std::unique_ptr<RelaySource>> RelaySource::create(const RelayOptions& options,
                                                         RelayEnds ends,
                                                         const SharingDomain& domain,
                                                         const SessionSecret& secret,
                                                         StretchSink* sink) {
  TRY(check(options));
  return std::unique_ptr<RelaySource>(
      new RelaySource(std::make_unique<Impl>(options, ends, domain, secret, sink)));
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
