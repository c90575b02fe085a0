// The promise under test: a save image, or a template's state, is read within its bounds or
// refused.

#include <random>
#include <string>

#include "core/check.h"
#include "migrator/save_image.h"
#include "migrator/template_state.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::migrator {
namespace {

bool is_refusal(Errc code) {
  return code == Errc::kCorrupt || code == Errc::kInvalid || code == Errc::kNotFound;
}

void read(std::span<const std::byte> bytes) {
  const auto image = SaveImage::parse(bytes);
  if (image) {
    const auto again = image->serialize();
    const auto same = SaveImage::parse(again);
    CHECK(same);
    CHECK(same->xml == image->xml);
    const auto kept = without_block(image->stream, "pc.ram");
    if (kept) {
      // Names of blocks that a record had not said may make it longer; pages went away.
      CHECK(kept->size() <= image->stream.size() * 32);
    } else {
      CHECK(is_refusal(kept.error().code()));
    }
  } else {
    CHECK(is_refusal(image.error().code()));
  }
  const auto state = TemplateState::parse(bytes);
  if (state) {
    CHECK(TemplateState::parse(state->serialize()));
  } else {
    CHECK(state.error().code() == Errc::kCorrupt);
  }
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  std::mt19937_64 random(1);
  const auto stream = samepage::fakes::fake_guest_stream(4, random, nullptr);
  samepage::migrator::SaveImage image{
      .xml = "<domain/>", .cookie = "<cookie/>", .was_running = true, .stream = stream};
  samepage::migrator::TemplateState state;
  state.name = "small";
  state.id = std::string(32, 'a');
  state.memory_bytes = 4096;
  state.ram_block = "pc.ram";
  state.leader.nics = {"<interface/>"};
  return {image.serialize(), state.serialize()};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::migrator::read(samepage::fuzz::as_input(data, size));
  return 0;
}
