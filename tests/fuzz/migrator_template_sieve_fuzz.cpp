// The promise under test: whatever the stream and however it is cut, the target's memory is the
// same with the sieve as without it.

#include <algorithm>
#include <random>

#include "core/check.h"
#include "migrator/template_sieve.h"
#include "tests/fakes/fake_guest_memory.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/migrator/played_memory.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kPages = 8;

/// Zero pages, and pages of one byte.
std::shared_ptr<fakes::FakeGuestMemory> make_template() {
  auto ram = std::make_shared<fakes::FakeGuestMemory>(kPages);
  for (std::uint64_t page = 0; page < kPages; page += 2) ram->put(page, 0x0101010101010101 * page);
  return ram;
}

std::vector<std::byte> make_stream(unsigned seed) {
  std::mt19937_64 random(seed);
  fakes::FakeQemuStream stream;
  stream.file_header().configuration("pc").section_start("ram", 4).ram_sizes(kPages * kPageSize);
  stream.ram_block("pc.ram", kPages * kPageSize).end_of_section().footer().section_part();
  stream.first_zero("pc.ram", 0);
  for (int i = 0; i < 6; ++i) {
    const std::uint64_t page = random() % kPages;
    const auto bytes = fakes::FakeGuestMemory::page_of(0x0101010101010101 * (random() % 4));
    random() % 2 == 0 ? stream.zero(page * kPageSize) : stream.page(page * kPageSize, bytes);
  }
  return {stream.view().begin(), stream.view().end()};
}

void check(std::span<const std::byte> input, std::size_t piece) {
  const auto ram = make_template();
  std::vector<std::vector<std::byte>> pages(kPages, std::vector<std::byte>(kPageSize));
  for (const auto& [number, page] : ram->held) {
    std::ranges::copy(page, pages[number].begin());
  }
  PlayedMemory whole(pages);
  PlayedMemory some(pages);
  const auto write = [&](std::span<const std::byte> bytes) -> Result<void> {
    some.read(bytes);
    return {};
  };
  TemplateSieve sieve({.ram = ram, .block = "pc.ram", .written = std::vector<bool>(kPages)});
  while (!input.empty()) {
    const auto bytes = input.first(std::min(piece, input.size()));
    if (!sieve.pass(bytes, write)) return;  // Post-copy.
    whole.read(bytes);
    input = input.subspan(bytes.size());
    CHECK(some.pages == whole.pages);
  }
  CHECK(sieve.finish(write).has_value());
  CHECK(some.pages == whole.pages);
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using samepage::migrator::make_stream;
  return {make_stream(1), make_stream(2), make_stream(3)};
}

// The last byte says how long the pieces of the second attempt are. Memory is compared after each, so
// they are not the shortest; template_sieve_test has those.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto input = samepage::fuzz::as_input(data, size);
  samepage::migrator::check(input, SIZE_MAX / 2);
  samepage::migrator::check(input, 101 + std::size_t{data[size - 1]} * 37);
  return 0;
}
