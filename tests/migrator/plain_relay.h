#pragma once

#include <array>
#include <atomic>
#include <limits>
#include <thread>
#include <vector>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "migrator/relay_half.h"

namespace samepage::migrator {

/// A relay that understands nothing: frames with a length carry QEMU's bytes, an empty one is the
/// end. Breaks off when so many bytes of QEMU's have passed as the test says.
class PlainRelay final : public RelayHalf {
 public:
  enum class Role : std::uint8_t { kSource, kTarget };

  PlainRelay(Role role, RelayEnds ends, std::uint64_t fail_after)
      : role_(role), ends_(ends), fail_after_(fail_after) {}

  static MakeRelay maker(Role role,
                         std::uint64_t fail_after = std::numeric_limits<std::uint64_t>::max()) {
    return [role, fail_after](RelayEnds ends) -> Result<std::unique_ptr<RelayHalf>> {
      return std::make_unique<PlainRelay>(role, ends, fail_after);
    };
  }

  Result<void> run() override {
    Result<void> packed;
    Result<void> unpacked;
    {
      const std::jthread other([&] {
        packed = pack();
        if (!packed) stop();
      });
      unpacked = unpack();
      if (!unpacked) stop();
    }
    stop();
    if (!packed) return packed;
    return unpacked;
  }

  void stop() override {
    ends_.qemu.shut_down();
    ends_.peer.shut_down();
  }

  RelayCounters counters() const override { return {.stream_bytes = stream_bytes_}; }
  bool delivered() const override { return delivered_; }

 private:
  static Deadline in_time() { return std::chrono::steady_clock::now() + std::chrono::seconds(60); }

  Result<void> count(std::size_t bytes) {
    stream_bytes_ += bytes;
    if (stream_bytes_ > fail_after_) return fail(Errc::kCorrupt, "injected relay fault");
    return {};
  }

  /// QEMU's bytes to the peer.
  Result<void> pack() {
    std::vector<std::byte> buffer(30'000);
    for (;;) {
      const std::size_t got = TRY(ends_.qemu.read_some(buffer, in_time()));
      if (role_ == Role::kSource) TRY(count(got));
      ByteWriter frame;
      frame.u32(static_cast<std::uint32_t>(got));
      frame.raw(std::span(buffer).first(got));
      TRY(ends_.peer.write_all(frame.view(), in_time()));
      if (got == 0) return {};
    }
  }

  Result<void> read_exactly(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      const std::size_t got = TRY(ends_.peer.read_some(bytes, in_time()));
      if (got == 0) return fail(Errc::kUnavailable, "the peer ended");
      bytes = bytes.subspan(got);
    }
    return {};
  }

  /// The peer's bytes to QEMU.
  Result<void> unpack() {
    for (;;) {
      std::array<std::byte, 4> head{};
      TRY(read_exactly(head));
      std::vector<std::byte> bytes(TRY(ByteReader(head).u32()));
      if (bytes.empty()) break;
      TRY(read_exactly(bytes));
      if (role_ == Role::kTarget) TRY(count(bytes.size()));
      TRY(ends_.qemu.write_all(bytes, in_time()));
    }
    delivered_ = true;
    // The source's QEMU may have closed already.
    static_cast<void>(ends_.qemu.finish_writing());
    return {};
  }

  const Role role_;
  const RelayEnds ends_;
  const std::uint64_t fail_after_;
  std::atomic<std::uint64_t> stream_bytes_ = 0;
  std::atomic<bool> delivered_ = false;
};

}  // namespace samepage::migrator
