#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "migrator/batch.h"
#include "migrator/relay_source.h"
#include "migrator/relay_target.h"
#include "pagecache/page_cache.h"
#include "tests/fakes/fake_byte_stream.h"

namespace samepage::migrator {

using Bytes = std::vector<std::byte>;

inline const SharingDomain test_domain{.name = "default", .seed = {11}, .key = {{std::byte{12}}}};
inline constexpr SessionSecret kSecret{{std::byte{13}}};

inline Deadline in_time() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(20);
}

/// The body of a BATCH message.
inline Bytes whole(const EncodedBatch& batch) {
  Bytes body = batch.head;
  body.insert(body.end(), batch.tail.bytes.begin(), batch.tail.bytes.end());
  return body;
}

/// A copy of `bytes` as a stretch.
inline StreamBytes stretch_of(std::span<const std::byte> bytes) {
  auto slab = std::make_shared<Slab>(bytes.size());
  std::ranges::copy(bytes, slab->bytes().begin());
  return {.slab = slab, .bytes = slab->bytes().first(bytes.size())};
}

/// Pages of a host, which the test may change behind the page cache's back.
using HostPages = std::shared_ptr<std::vector<Bytes>>;

class HostPageSource final : public pagecache::PageSource {
 public:
  explicit HostPageSource(HostPages pages) : pages_(std::move(pages)) {}

  Result<void> read(std::uint64_t page, PageBuffer destination) override {
    if (page >= pages_->size()) return fail(Errc::kNotFound, "no such page");
    std::ranges::copy((*pages_)[page], destination.begin());
    return {};
  }
  std::string name() const override { return "test pages"; }

 private:
  const HostPages pages_;
};

/// A cache that has indexed `pages` as they are now.
inline std::unique_ptr<pagecache::PageCache> make_cache(const HostPages& pages,
                                                        const pagecache::Options& options = {}) {
  auto cache = pagecache::PageCache::create(options, test_domain).value();
  std::vector<fingerprinter::ScannedPage> scanned;
  for (std::uint64_t i = 0; i < pages->size(); ++i) {
    const PageView page = std::span<const std::byte>((*pages)[i]).first<kPageSize>();
    scanned.push_back({i, hash_page(page, test_domain.seed)});
  }
  cache->add(std::make_unique<HostPageSource>(pages), scanned);
  return cache;
}

inline std::unique_ptr<pagecache::PageCache> empty_cache() {
  return make_cache(std::make_shared<std::vector<Bytes>>());
}

/// Reads to the end, or to the breaking of the connection.
inline Bytes read_to_end(ByteStream& stream) {
  Bytes all;
  Bytes buffer(64U << 10U);
  for (;;) {
    const auto size = stream.read_some(buffer, in_time());
    if (!size || *size == 0) return all;
    all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(*size));
  }
}

inline Bytes read_exactly(ByteStream& stream, std::size_t size) {
  Bytes all(size);
  for (std::size_t at = 0; at < size;) {
    const auto read = stream.read_some(std::span(all).subspan(at), in_time());
    if (!read || *read == 0) return {};
    at += *read;
  }
  return all;
}

/// Both relays, with the QEMU of both hosts played by the test.
class RelayHarness {
 public:
  explicit RelayHarness(pagecache::PageCache& cache, const RelayOptions& options = {},
                        std::optional<pagecache::SourceId> base = std::nullopt,
                        PassWatch* passes = nullptr) {
    source = RelaySource::create(options, {*source_qemu_.second, *wire.first, passes}, test_domain,
                                 kSecret)
                 .value();
    target = RelayTarget::create(options, {*target_qemu_.second, *wire.second}, {cache, base},
                                 test_domain, kSecret)
                 .value();
  }
  ~RelayHarness() { join(); }
  RelayHarness(const RelayHarness&) = delete;
  RelayHarness& operator=(const RelayHarness&) = delete;

  void start() {
    source_thread_ = std::thread([this] { source_result = source->run(); });
    target_thread_ = std::thread([this] { target_result = target->run(); });
  }

  void join() {
    if (source_thread_.joinable()) source_thread_.join();
    if (target_thread_.joinable()) target_thread_.join();
  }

  /// Sends `stream` as QEMU would, in pieces of up to `piece()` bytes, and returns what the other
  /// QEMU got. Both close as QEMU does.
  template <class Piece>
  Bytes migrate(std::span<const std::byte> stream, Piece piece) {
    start();
    std::thread sender([&] {
      for (auto rest = stream; !rest.empty();) {
        const std::size_t size = std::min<std::size_t>(piece(), rest.size());
        if (!source_qemu().write_all(rest.first(size), in_time())) return;
        rest = rest.subspan(size);
      }
      (void)source_qemu().finish_writing();
    });
    Bytes got = read_to_end(target_qemu());
    (void)target_qemu().finish_writing();
    join();
    sender.join();
    return got;
  }
  Bytes migrate(std::span<const std::byte> stream) {
    return migrate(stream, [&] { return stream.size(); });
  }

  fakes::FakeByteStream& source_qemu() { return *source_qemu_.first; }
  fakes::FakeByteStream& target_qemu() { return *target_qemu_.first; }

  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>> wire =
      fakes::FakeByteStream::connect();  ///< The source's end, the target's end.
  std::unique_ptr<RelaySource> source;
  std::unique_ptr<RelayTarget> target;
  Result<void> source_result = fail(Errc::kInvalid, "not run");
  Result<void> target_result = fail(Errc::kInvalid, "not run");

 private:
  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>>
      source_qemu_ = fakes::FakeByteStream::connect();
  std::pair<std::unique_ptr<fakes::FakeByteStream>, std::unique_ptr<fakes::FakeByteStream>>
      target_qemu_ = fakes::FakeByteStream::connect();
  std::thread source_thread_;
  std::thread target_thread_;
};

}  // namespace samepage::migrator
