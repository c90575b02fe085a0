#pragma once

#include <string_view>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "migrator/batch.h"
#include "migrator/peer_link.h"
#include "tests/migrator/relay_harness.h"

namespace samepage::migrator {

/// Short waits, for faults that only waiting shows.
inline RelayOptions impatient() {
  RelayOptions options;
  options.stall_max = std::chrono::milliseconds(150);
  options.quiet_max = std::chrono::milliseconds(150);
  return options;
}

/// A source relay whose target the test plays, message by message.
class PlayedTarget {
 public:
  explicit PlayedTarget(const RelayOptions& options = impatient()) {
    source_ =
        RelaySource::create(options, {*qemu_.second, *wire_.second}, test_domain, kSecret).value();
    thread_ = std::thread([this] { result = source_->run(); });
  }
  ~PlayedTarget() {
    wire_.first->shut_down();
    join();
  }
  PlayedTarget(const PlayedTarget&) = delete;
  PlayedTarget& operator=(const PlayedTarget&) = delete;

  void greet() {
    EXPECT_EQ(link.receive(in_time()).value().type, MessageType::kHello);
    send(MessageType::kHello, encode_hello({}));
    send(MessageType::kFilter, {});
  }
  void send(MessageType type, std::span<const std::byte> body) {
    (void)link.send(type, body, in_time());
  }
  Errc error() {
    join();
    return result.error().code();
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  fakes::FakeByteStream& qemu() { return *qemu_.first; }

 private:
  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>> qemu_ =
      fakes::FakeByteStream::connect();
  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>> wire_ =
      fakes::FakeByteStream::connect(64U << 20U);
  std::unique_ptr<RelaySource> source_;
  std::thread thread_;

 public:
  PeerLink link{*wire_.first};
  Result<void> result = fail(Errc::kInvalid, "not run");
};

inline Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A target relay whose source the test plays.
class PlayedSource {
 public:
  explicit PlayedSource(pagecache::PageCache& cache, const RelayOptions& options = impatient()) {
    target_ =
        RelayTarget::create(options, {*qemu_.second, *wire_.second}, cache, test_domain, kSecret)
            .value();
    thread_ = std::thread([this] { result = target_->run(); });
    EXPECT_EQ(link.receive(in_time()).value().type, MessageType::kHello);
    send(MessageType::kHello, encode_hello({}));
    EXPECT_EQ(link.receive(in_time()).value().type, MessageType::kFilter);
  }
  ~PlayedSource() {
    wire_.first->shut_down();
    join();
  }
  PlayedSource(const PlayedSource&) = delete;
  PlayedSource& operator=(const PlayedSource&) = delete;

  void send(MessageType type, std::span<const std::byte> body) {
    (void)link.send(type, body, in_time());
  }
  /// The next that the target says, but for the news of what has arrived.
  PeerLink::Message answer() {
    for (;;) {
      auto message = link.receive(in_time()).value();
      if (message.type != MessageType::kArrived) return message;
    }
  }
  /// A batch of a text and, perhaps, a page that the target must ask for.
  void send_batch(std::uint64_t sequence, std::string_view text, const Bytes* page = nullptr,
                  PageHash hash = {1}) {
    BatchEncoder encoder;
    Bytes stretch = bytes_of(text);
    encoder.add_literal(std::as_bytes(std::span(text)));
    if (page != nullptr) {
      const StreamToken token{.kind = StreamToken::Kind::kPage, .bytes = *page};
      encoder.add_found(token, hash);
      stretch.insert(stretch.end(), page->begin(), page->end());
    }
    send(MessageType::kBatch, whole(encoder.finish(begin_batch(sequence, stretch), 1)));
  }
  void send_page(std::uint64_t sequence, const Bytes& page, bool is_pipe) {
    const BatchHeader header = begin_batch(sequence, page);
    BatchEncoder encoder;
    encoder.add_page({.kind = StreamToken::Kind::kPage, .bytes = page});
    const auto batch = is_pipe ? pipe_batch(header, stretch_of(page)) : encoder.finish(header, 1);
    send(MessageType::kBatch, whole(batch));
  }
  /// A page that went before, at `place`.
  void send_copy(std::uint64_t sequence, const Bytes& page, std::uint64_t place) {
    const BatchHeader header = begin_batch(sequence, page);
    BatchEncoder encoder;
    encoder.add_copy({.kind = StreamToken::Kind::kPage, .bytes = page}, place);
    send(MessageType::kBatch, whole(encoder.finish(header, 1)));
  }
  void send_end(StreamEnd end) {
    end.mac = end_mac(key, end);
    send(MessageType::kEnd, encode_end(end));
  }
  Errc error() {
    join();
    return result.error().code();
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  /// Says no more, as a source that has left.
  void hang_up() { (void)wire_.first->finish_writing(); }
  Bytes delivered() { return read_to_end(*qemu_.first); }
  bool believed() const { return target_->delivered(); }

 private:
  BatchHeader begin_batch(std::uint64_t sequence, const Bytes& stretch) {
    BatchHeader header{.sequence = sequence, .begin = sent, .size = stretch.size(), .mac = {}};
    header.mac = stretch_mac(key, sequence, stretch);
    if (lies) header.mac.bytes[0] ^= std::byte{1};
    sent += stretch.size();
    return header;
  }

  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>> qemu_ =
      fakes::FakeByteStream::connect(64U << 20U);
  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>> wire_ =
      fakes::FakeByteStream::connect(64U << 20U);
  std::unique_ptr<RelayTarget> target_;
  std::thread thread_;

 public:
  PeerLink link{*wire_.first};
  const DigestKey key = stream_mac_key(kSecret);
  std::uint64_t sent = 0;
  bool lies = false;  ///< About the next batches' MACs.
  Result<void> result = fail(Errc::kInvalid, "not run");
};

}  // namespace samepage::migrator
