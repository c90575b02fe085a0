// The promise under test: whatever a guest writes into its RAM (VMCOREINFO, page tables, BTF, the
// memory map, what its struct pages point to), naming its pages ends, stays within the RAM, and
// gives every page one kind and one word.
//
// An input is the RAM from 1 MiB on; what is below is zeros.

#include <algorithm>

#include "core/check.h"
#include "fingerprinter/guest_kernel.h"
#include "tests/fingerprinter/made_guest.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using samepage::kPageSize;
using samepage::fingerprinter::MadeGuest;

constexpr std::size_t kBytesMax = 128 * kPageSize;

}  // namespace

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  std::vector<samepage::fuzz::Input> seeds;
  for (const std::uint64_t offset : {0U, 0x1d20'0000U}) {
    MadeGuest guest(offset);
    const auto all = std::span(guest.bytes());
    const auto used = all.first(MadeGuest::kEnd * kPageSize).subspan(MadeGuest::kFirst * kPageSize);
    seeds.push_back(samepage::fuzz::to_input(used));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace samepage::fingerprinter;  // NOLINT(google-build-using-namespace)
  const auto input = samepage::fuzz::as_input(data, std::min(size, kBytesMax));
  const std::size_t pages = MadeGuest::kFirst + (input.size() + kPageSize - 1) / kPageSize;
  std::vector<std::byte> bytes(pages * kPageSize);
  std::ranges::copy(input, bytes.begin() + MadeGuest::kFirst * kPageSize);
  const RamImage ram{std::span(bytes)};
  const auto kernel = GuestKernel::find(ram);
  if (!kernel) {
    CHECK(kernel.error().code() == samepage::Errc::kNotFound);
    return 0;
  }
  const PageNames names = kernel->name_pages();
  CHECK(names.uses.size() == ram.pages());
  for (const PageNames::Use& use : names.uses) {
    CHECK(static_cast<std::size_t>(use.kind) < kPageKinds);
    CHECK(use.word < names.words.size());
  }
  return 0;
}
