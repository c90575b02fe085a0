// Fingerprints and their deltas come over the bus from hosts that may be hostile: no bytes crash
// the reader, what it takes is within its limits, and what it takes it writes again the same.

#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "fingerprinter/fingerprint.h"
#include "fingerprinter/overlap.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using samepage::fingerprinter::Fingerprint;

Fingerprint of(std::uint64_t pages) {
  samepage::fingerprinter::Scan scan;
  for (std::uint64_t i = 1; i <= pages; ++i) {
    scan.hashed.push_back({i, samepage::PageHash{i * 0x9E3779B97F4A7C15U}});
  }
  scan.pages = 4'000;
  return Fingerprint::of(scan);
}

const Fingerprint& base() {
  static const Fingerprint made = of(2'000);
  return made;
}

void check(const Fingerprint& taken) {
  const std::vector<std::byte> bytes = taken.serialize();
  if (bytes.size() > Fingerprint::kBytesMax) std::abort();
  if (Fingerprint::parse(bytes).value().version() != taken.version()) std::abort();
  const auto common = samepage::fingerprinter::overlap(taken, base());
  if (!(common.low <= common.high)) std::abort();
}

}  // namespace

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  return {samepage::fuzz::to_input(base().serialize()),
          samepage::fuzz::to_input(of(2'010).delta_since(base()))};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto whole = Fingerprint::parse(bytes)) check(*whole);
  if (const auto made = base().with_delta(bytes)) check(*made);
  return 0;
}
