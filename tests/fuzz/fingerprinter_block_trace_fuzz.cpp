// The promise under test: any text is taken as a log, within the trace's bound, and two traces that
// were cut from it compare with sums that add up.

#include <string_view>

#include <fmt/format.h>

#include "core/check.h"
#include "fingerprinter/block_trace.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

constexpr std::size_t kBlocksMax = 500;

}  // namespace

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  std::string log;
  for (unsigned i = 0; i < 200; ++i) {
    log += fmt::format("Trace 0: 0x7f5c2c000100 [00000000/{:016x}/00000033/ff000000] f\n",
                       0xffffffff81000000 + i % 37 * 16);
  }
  return {samepage::fuzz::to_input(std::as_bytes(std::span(log)))};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using samepage::fingerprinter::BlockTrace;
  const std::string_view log(reinterpret_cast<const char*>(data), size);
  BlockTrace a(kBlocksMax);
  BlockTrace b(kBlocksMax);
  a.add(log);
  b.add(log.substr(0, size / 3));
  b.add(log.substr(size / 2));
  CHECK(a.blocks().size() <= kBlocksMax);
  const auto found = compare(a, b);
  CHECK(found.blocks == a.blocks().size() + b.blocks().size());
  CHECK(found.in_step <= found.in_any_order);
  CHECK(found.in_any_order <= found.blocks);
  CHECK(found.equal_runs.sum * 2 == found.in_step);
  return 0;
}
