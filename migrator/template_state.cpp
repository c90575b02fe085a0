#include "migrator/template_state.h"

#include <algorithm>
#include <string_view>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/page.h"

namespace samepage::migrator {
namespace {

constexpr std::string_view kMagic = "SPTMPL02";
constexpr std::size_t kNameBytesMax = 128;
constexpr std::size_t kXmlBytesMax = std::size_t{4} << 20U;
constexpr std::size_t kNicsMax = 32;
constexpr std::uint64_t kMemoryBytesMax = std::uint64_t{1} << 44U;
constexpr std::uint64_t kSecondsMax = std::uint64_t{1} << 40U;

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool is_word(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

Result<void> check(const TemplateState& state) {
  constexpr std::size_t kIdBytes = 32;
  TRY(check_template_name(state.name));
  if (state.id.size() != kIdBytes || !std::all_of(state.id.begin(), state.id.end(), is_hex)) {
    return fail(Errc::kCorrupt, "a template's id is no id");
  }
  if (!ram_block_of(state.ram_block)) return fail(Errc::kCorrupt, "a template without RAM");
  if (state.memory_bytes == 0 || state.memory_bytes % kPageSize != 0) {
    return fail(Errc::kCorrupt, "a template's memory is no number of pages");
  }
  return {};
}

}  // namespace

Result<void> check_template_name(std::string_view name) {
  constexpr std::size_t kTemplateNameMax = 64;
  const bool fits = !name.empty() && name.size() <= kTemplateNameMax && is_word(name.front()) &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return is_word(c) || c == '.' || c == '_' || c == '-';
                    });
  if (fits) return {};
  return fail(Errc::kInvalid,
              "a template's name is 1 to 64 letters, digits, '.', '_' and '-', with a letter or "
              "digit first");
}

std::vector<std::byte> TemplateState::serialize() const {
  ByteWriter writer;
  writer.raw(std::as_bytes(std::span(kMagic)));
  writer.text(name);
  writer.text(id);
  writer.text(image);
  writer.varint(image_version);
  writer.varint(disk_version);
  writer.varint(memory_bytes);
  writer.varint(vcpus);
  writer.text(hypervisor);
  writer.varint(static_cast<std::uint64_t>(made_at.time_since_epoch().count()));
  writer.varint(ready_ms);
  writer.text(ram_block);
  writer.text(leader.xml);
  writer.varint(leader.nics.size());
  for (const std::string& nic : leader.nics) writer.text(nic);
  writer.text(cookie);
  writer.varint(stream.size());
  writer.raw(stream);
  return writer.take();
}

Result<TemplateState> TemplateState::parse(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  const auto magic = TRY(reader.raw(kMagic.size()));
  if (!std::ranges::equal(magic, std::as_bytes(std::span(kMagic)))) {
    return fail(Errc::kCorrupt, "this is no template of a known format");
  }
  TemplateState state;
  state.name = TRY(reader.text(kNameBytesMax));
  state.id = TRY(reader.text(kNameBytesMax));
  state.image = TRY(reader.text(kNameBytesMax));
  state.image_version = TRY(reader.varint());
  state.disk_version = TRY(reader.varint());
  state.memory_bytes = TRY(reader.varint(kMemoryBytesMax));
  state.vcpus = static_cast<std::uint32_t>(TRY(reader.varint(UINT32_MAX)));
  state.hypervisor = TRY(reader.text(kNameBytesMax));
  const std::uint64_t made_at_s = TRY(reader.varint(kSecondsMax));
  state.made_at = std::chrono::sys_seconds(std::chrono::seconds(made_at_s));
  state.ready_ms = TRY(reader.varint());
  state.ram_block = TRY(reader.text(kNameBytesMax));
  state.leader.xml = TRY(reader.text(kXmlBytesMax));
  const std::uint64_t nics = TRY(reader.varint(kNicsMax));
  for (std::uint64_t i = 0; i < nics; ++i) {
    state.leader.nics.push_back(TRY(reader.text(kXmlBytesMax)));
  }
  state.cookie = TRY(reader.text(kXmlBytesMax));
  const std::uint64_t stream_bytes = TRY(reader.varint(kBytesMax));
  const auto stream = TRY(reader.raw(stream_bytes));
  state.stream.assign(stream.begin(), stream.end());
  if (!reader.at_end()) return fail(Errc::kCorrupt, "something follows the template's end");
  const auto sound = check(state);
  if (!sound) return fail(Errc::kCorrupt, sound.error().message());
  return state;
}

}  // namespace samepage::migrator
