#include "migrator/save_image.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"
#include "migrator/stream_parser.h"

namespace samepage::migrator {
namespace {

constexpr std::string_view kMagic = "LibvirtQemudSave";
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kUnusedBytes = std::size_t{4} * 14;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Up to the first zero byte; none when there is no such byte.
std::optional<std::string_view> terminated(std::string_view text) {
  const std::size_t end = text.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  return text.substr(0, end);
}

// Of QEMU's RAM records, see stream_parser.cpp.
constexpr std::uint64_t kContinues = 0x20;
constexpr std::size_t kRecordHeaderBytes = 8;
constexpr std::byte kSectionFull{0x04};

/// Copies a stream, but for one block's page records.
class BlockFilter {
 public:
  explicit BlockFilter(std::string_view block) : block_(block) {}

  void take(const StreamToken& token) {
    const bool is_page = token.kind != StreamToken::Kind::kBytes;
    if (is_page) {
      take_page(token);
    } else {
      append(token.bytes);
    }
  }

  std::uint64_t dropped() const { return dropped_; }
  std::vector<std::byte> result() { return std::move(kept_); }

 private:
  void take_page(const StreamToken& token) {
    const bool continues = (token.header & kContinues) != 0;
    const auto rest = token.bytes.subspan(kRecordHeaderBytes);
    const std::size_t name_bytes = continues ? 0 : 1 + std::to_integer<std::size_t>(rest.front());
    if (!continues) current_ = text_of(rest.subspan(1, name_bytes - 1));
    if (current_ == block_) {
      ++dropped_;
      return;
    }
    // The record before this one may be gone, so it names its block itself.
    append_header(token.header & ~kContinues);
    append_name();
    append(rest.subspan(name_bytes));
  }

  void append_header(std::uint64_t header) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      kept_.push_back(std::byte(static_cast<std::uint8_t>(header >> static_cast<unsigned>(shift))));
    }
  }

  void append_name() {
    kept_.push_back(std::byte(static_cast<std::uint8_t>(current_.size())));
    append(std::as_bytes(std::span(current_)));
  }

  void append(std::span<const std::byte> bytes) {
    kept_.insert(kept_.end(), bytes.begin(), bytes.end());
  }

  const std::string block_;
  std::string current_;
  std::uint64_t dropped_ = 0;
  std::vector<std::byte> kept_;
};

}  // namespace

Result<SaveImage> SaveImage::parse(std::span<const std::byte> file) {
  ByteReader reader(file);
  if (text_of(TRY(reader.raw(kMagic.size()))) != kMagic) {
    return fail(Errc::kCorrupt, "this is no file that `virsh save` has completed");
  }
  const std::uint32_t version = TRY(reader.u32());
  const std::uint32_t data_bytes = TRY(reader.u32());
  const std::uint32_t was_running = TRY(reader.u32());
  const std::uint32_t compressed = TRY(reader.u32());
  const std::uint32_t cookie_offset = TRY(reader.u32());
  if (version != kVersion) {
    return fail(Errc::kInvalid,
                "save images of version " + std::to_string(version) + " are not known");
  }
  if (compressed != 0) {
    return fail(Errc::kInvalid,
                "the save image is compressed: set save_image_format = \"raw\" in qemu.conf");
  }
  if (data_bytes > kDataBytesMax) return fail(Errc::kCorrupt, "the save image's XML has no end");
  TRY(reader.raw(kUnusedBytes));
  const std::string_view data = text_of(TRY(reader.raw(data_bytes)));

  SaveImage image;
  const auto xml = terminated(data);
  if (!xml || xml->empty()) return fail(Errc::kCorrupt, "the save image holds no XML");
  image.xml = *xml;
  if (cookie_offset != 0) {
    if (cookie_offset <= xml->size() || cookie_offset >= data.size()) {
      return fail(Errc::kCorrupt, "the save image's cookie lies outside of it");
    }
    const auto cookie = terminated(data.substr(cookie_offset));
    if (!cookie) return fail(Errc::kCorrupt, "the save image's cookie has no end");
    image.cookie = *cookie;
  }
  image.was_running = was_running == 1;
  image.stream = TRY(reader.raw(reader.remaining()));
  return image;
}

std::vector<std::byte> SaveImage::serialize() const {
  const std::size_t xml_bytes = xml.size() + 1;
  const std::size_t data_bytes = xml_bytes + (cookie.empty() ? 0 : cookie.size() + 1);
  CHECK(data_bytes <= kDataBytesMax);
  ByteWriter writer;
  writer.raw(std::as_bytes(std::span(kMagic)));
  writer.u32(kVersion);
  writer.u32(static_cast<std::uint32_t>(data_bytes));
  writer.u32(was_running ? 1 : 0);
  writer.u32(0);
  writer.u32(cookie.empty() ? 0 : static_cast<std::uint32_t>(xml_bytes));
  writer.raw(std::vector<std::byte>(kUnusedBytes));
  for (const std::string* part : {&xml, &cookie}) {
    if (part->empty()) continue;
    writer.raw(std::as_bytes(std::span(*part)));
    writer.u8(0);
  }
  writer.raw(stream);
  return writer.take();
}

Result<std::vector<std::byte>> without_block(std::span<const std::byte> stream,
                                             std::string_view block) {
  BlockFilter filter(block);
  StreamParser parser;
  while (const auto token = parser.next(stream)) {
    const std::byte first = stream.front();
    stream = stream.subspan(token->bytes.size());
    filter.take(*token);
    // Behind the RAM come the devices. If the parser gave up before, a record that it did not
    // understand could depend on one that is not there any more.
    if (parser.opaque() && first != kSectionFull) {
      return fail(Errc::kCorrupt, "the RAM in QEMU's stream cannot be understood");
    }
    if (parser.opaque()) break;
  }
  if (!stream.empty() || !parser.opaque()) {
    return fail(Errc::kCorrupt, "QEMU's stream ends within the RAM");
  }
  if (filter.dropped() == 0) {
    return fail(Errc::kNotFound, "QEMU's stream has no pages of " + std::string(block));
  }
  return filter.result();
}

}  // namespace samepage::migrator
