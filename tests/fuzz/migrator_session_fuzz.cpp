// The promise under test: whatever comes on a session's channels and however it is cut, the readers
// of channels, signals and libvirt's protocol give values within their bounds or an error, and keep
// a bounded state.

#include <algorithm>

#include "core/byte_writer.h"
#include "core/check.h"
#include "migrator/libvirt_rpc.h"
#include "migrator/session_channel.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/said_already.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kTextMax = 1'000;

void read_channel(std::span<const std::byte> input, std::size_t piece) {
  SaidAlready stream(input, piece);
  const auto channel = receive_channel(stream, Deadline::max());
  if (!channel) CHECK(channel.error().code() != Errc::kInvalid);
}

void read_signals(std::span<const std::byte> input, std::size_t piece) {
  SignalLink link(std::make_unique<SaidAlready>(input, piece));
  for (std::size_t signals = 0;; ++signals) {
    CHECK(signals <= input.size());
    const auto signal = link.receive(Deadline::max());
    if (!signal) return;
    CHECK(signal->text.size() <= kTextMax);
  }
}

void watch_libvirt(std::span<const std::byte> input, std::size_t piece) {
  FinishWatch watch;
  RpcFramer framer;
  for (; !input.empty(); input = input.subspan(std::min(piece, input.size()))) {
    const auto bytes = input.first(std::min(piece, input.size()));
    for (const RpcMessage& message : framer.feed(bytes)) {
      CHECK(message.end > 0);
      CHECK(message.end <= bytes.size());
    }
    static_cast<void>(watch.saw_from_source(bytes));
    const auto end = watch.saw_from_target(bytes);
    CHECK(!end || *end <= bytes.size());
  }
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  samepage::ByteWriter channel;
  channel.u32(0x53504d31);
  channel.u8(2);
  samepage::ByteWriter signal;
  signal.u32(9);
  signal.u8(6);
  signal.u8(0);
  signal.text("no room");
  samepage::fuzz::Input finish(56);
  for (const auto& [at, byte] :
       {std::pair(3, 56), std::pair(4, 0x20), std::pair(6, 0x80), std::pair(7, 0x86),
        std::pair(11, 1), std::pair(14, 1), std::pair(15, 50), std::pair(23, 5)}) {
    finish[static_cast<std::size_t>(at)] = static_cast<std::byte>(byte);
  }
  return {samepage::fuzz::to_input(channel.view()), samepage::fuzz::to_input(signal.view()),
          finish};
}

// The last byte says how long the pieces are.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace samepage::migrator;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const auto input = samepage::fuzz::as_input(data, size);
  const std::size_t piece = 1 + std::size_t{data[size - 1]};
  read_channel(input, piece);
  read_signals(input, piece);
  watch_libvirt(input, piece);
  return 0;
}
