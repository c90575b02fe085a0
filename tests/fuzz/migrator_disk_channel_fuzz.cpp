// The promise under test: whatever comes on a disk's channel and however it is cut, the words that
// are read are words, within their bounds, and a target does nothing for a source that talks
// nonsense but to end it.

#include <algorithm>

#include "core/byte_writer.h"
#include "core/check.h"
#include "migrator/arriving_disks.h"
#include "migrator/disk_channel.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/said_already.h"
#include "tests/migrator/played_disk.h"

namespace samepage::migrator {
namespace {

void read_words(std::span<const std::byte> input, std::size_t piece) {
  DiskLink link(std::make_unique<SaidAlready>(input, piece));
  for (std::size_t words = 0;; ++words) {
    CHECK(words <= input.size());
    const auto message = link.receive(Deadline::max());
    if (!message) return;
    CHECK(message->word >= DiskWord::kOffer && message->word <= DiskWord::kRefused);
    CHECK(message->body.size() <= kDiskParcelMax);
  }
}

void arrive(std::span<const std::byte> input, std::size_t piece) {
  PlayedDisk disk;
  ArrivingDisks arriving(disk.expected(), Deadline::max(), [](Error) {});
  arriving.add(std::make_unique<SaidAlready>(input, piece));
  arriving.finish();
  CHECK(disk.is_complete() || !arriving.have_arrived());
}

samepage::fuzz::Input spoken(std::span<const DiskMessage> words) {
  ByteWriter writer;
  for (const DiskMessage& message : words) {
    writer.u8(static_cast<std::uint8_t>(message.word));
    writer.u32(static_cast<std::uint32_t>(message.body.size()));
    writer.raw(message.body);
  }
  return writer.take();
}

std::vector<std::byte> numbers(std::initializer_list<std::uint8_t> bytes, std::size_t size) {
  std::vector<std::byte> body(size);
  std::ranges::transform(bytes, body.begin(), [](std::uint8_t byte) { return std::byte{byte}; });
  return body;
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::migrator;  // NOLINT(google-build-using-namespace)
  const std::vector<DiskMessage> words{{DiskWord::kOffer, numbers({77}, 4)},
                                       {DiskWord::kParcel, numbers({5, 0, 1}, 16)},
                                       {DiskWord::kRound, {}},
                                       {DiskWord::kParcel, numbers({9}, 16)},
                                       {DiskWord::kComplete, {}}};
  return {spoken(words), spoken(std::span(words).first(2))};
}

// The last byte says how long the pieces are.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace samepage::migrator;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const auto input = samepage::fuzz::as_input(data, size);
  const std::size_t piece = 1 + std::size_t{data[size - 1]};
  read_words(input, piece);
  arrive(input, piece);
  return 0;
}
