#include "migrator/stream_parser.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "core/check.h"

// The grammar, all numbers big-endian:
//
//   stream   "QEVM" be32:3, then sections, commands and footers, then an end mark
//   section  u8:type be32:id [START only: u8:n name be32:instance be32:version] body
//   ram      records until END_OF_SECTION; a record begins with be64: an offset that is a multiple
//            of 4096, with flags in the low 12 bits
//   block    without CONTINUES, a page record names its RAM block: u8:n name
//
// A stream of multifd is another one: a hello of 64 bytes, then packets, each followed by its
// pages:
//
//   packet   be32:magic be32:1 be32:flags be32:slots be32:pages be32:payload be64:number, 32 bytes,
//            256 bytes of the block's name, slots * be64:offset; then pages * 4096 bytes = payload
//
// Only the sections of "ram" have bodies that can be told from what follows them. They come before
// all other sections, so that the guest's pages are seen and the devices' state is not.

namespace samepage::migrator {
namespace {

constexpr std::uint32_t kFileMagic = 0x5145564D;
constexpr std::uint32_t kFileVersion = 3;
constexpr std::uint32_t kRamVersion = 4;

constexpr std::uint32_t kMultifdMagic = 0x11223344;
constexpr std::uint32_t kMultifdVersion = 1;
constexpr std::uint32_t kMultifdSync = 1;  // The other flags say how pages are compressed.
constexpr std::size_t kMultifdHelloRest = 64 - 4;
constexpr std::size_t kMultifdPacketRest = 8 + 32;
constexpr std::size_t kMultifdNameBytes = 256;
constexpr std::uint32_t kMultifdSlotsMax = 256;

enum SectionType : std::uint8_t {
  kSectionStart = 0x01,
  kSectionPart = 0x02,
  kSectionEnd = 0x03,
  kSubsection = 0x05,
  kConfiguration = 0x07,
  kCommand = 0x08,
  kFooter = 0x7E,
};

constexpr std::uint16_t kCommandPostcopyAdvise = 3;
constexpr std::uint16_t kCommandPackaged = 7;

enum RamFlag : std::uint64_t {
  kRamZero = 0x02,
  kRamSizes = 0x04,
  kRamPage = 0x08,
  kRamEndOfSection = 0x10,
  kRamContinues = 0x20,
  kRamMultifdFlush = 0x200,
};
constexpr std::uint64_t kRamFlags = kPageSize - 1;

constexpr std::size_t kNameBytesMax = 255;
constexpr std::size_t kRamBlocksMax = 4096;

bool is_printable(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

/// Reads numbers off the front of the input. Behind the input's end it reads zeros and says so.
class StreamParser::Cursor {
 public:
  explicit Cursor(std::span<const std::byte> input) : input_(input) {}

  std::uint64_t number(std::size_t size) {
    std::uint64_t value = 0;
    for (const std::byte byte : raw(size)) value = value << 8U | std::to_integer<unsigned>(byte);
    return value;
  }
  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t be16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t be32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t be64() { return number(8); }

  std::string_view name(std::size_t size) {
    const auto bytes = raw(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  void skip(std::size_t size) { raw(size); }

  /// Something that was read lies behind the input's end.
  bool incomplete() const { return incomplete_; }

  std::span<const std::byte> input() const { return input_; }
  std::span<const std::byte> taken() const { return input_.first(at_); }

 private:
  std::span<const std::byte> raw(std::size_t size) {
    if (incomplete_ || size > input_.size() - at_) {
      incomplete_ = true;
      return {};
    }
    at_ += size;
    return input_.subspan(at_ - size, size);
  }

  std::span<const std::byte> input_;
  std::size_t at_ = 0;
  bool incomplete_ = false;
};

std::optional<StreamToken> StreamParser::next(std::span<const std::byte> input) {
  if (input.empty()) return std::nullopt;
  return drained_.empty() ? record(input) : resume(input);
}

StreamToken StreamParser::drain(std::span<const std::byte> input) {
  // In the other states next() takes whatever there is.
  CHECK(state_ != State::kSkip);
  CHECK(state_ != State::kOpaque);
  drained_.insert(drained_.end(), input.begin(), input.end());
  CHECK(drained_.size() < kRecordBytesMax);
  return {.bytes = input};
}

// The front of this record was given out; whatever the record turns out to be, its rest is bytes.
StreamParser::Step StreamParser::resume(std::span<const std::byte> input) {
  const std::size_t before = drained_.size();
  const std::size_t offered = std::min(input.size(), kRecordBytesMax - before);
  drained_.insert(drained_.end(), input.begin(),
                  input.begin() + static_cast<std::ptrdiff_t>(offered));

  const Step whole = record(drained_);
  if (!whole) return StreamToken{.bytes = input.first(offered)};
  const std::size_t size = whole->bytes.size();
  CHECK(size > before);
  drained_.clear();
  return StreamToken{.bytes = input.first(size - before)};
}

StreamParser::Step StreamParser::record(std::span<const std::byte> input) {
  Cursor cursor(input);
  switch (state_) {
    case State::kFileHeader:
      return file_header(cursor);
    case State::kSections:
      return section(cursor);
    case State::kRamRecords:
      return ram_record(cursor);
    case State::kRamBlocks:
      return ram_block(cursor);
    case State::kSkip:
      return skip(input);
    case State::kMultifdPacket:
      return multifd_packet(cursor);
    case State::kMultifdPages:
      return multifd_page(cursor);
    case State::kOpaque:
      break;
  }
  return StreamToken{.bytes = input};
}

StreamParser::Step StreamParser::take(const Cursor& cursor, State next) {
  state_ = next;
  return StreamToken{.bytes = cursor.taken()};
}

StreamParser::Step StreamParser::give_up(const Cursor& cursor) {
  state_ = State::kOpaque;
  return StreamToken{.bytes = cursor.input()};
}

StreamParser::Step StreamParser::skip(std::span<const std::byte> input) {
  const std::uint64_t size = std::min<std::uint64_t>(skip_, input.size());
  skip_ -= size;
  if (skip_ == 0) state_ = State::kSections;
  return StreamToken{.bytes = input.first(size)};
}

StreamParser::Step StreamParser::file_header(Cursor& cursor) {
  const std::uint32_t magic = cursor.be32();
  if (magic == kMultifdMagic) return multifd_hello(cursor);
  const bool known = magic == kFileMagic && cursor.be32() == kFileVersion;
  if (cursor.incomplete()) return std::nullopt;
  return known ? take(cursor, State::kSections) : give_up(cursor);
}

StreamParser::Step StreamParser::multifd_hello(Cursor& cursor) {
  cursor.skip(kMultifdHelloRest);
  if (cursor.incomplete()) return std::nullopt;
  return take(cursor, State::kMultifdPacket);
}

StreamParser::Step StreamParser::multifd_packet(Cursor& cursor) {
  const std::uint32_t magic = cursor.be32();
  const std::uint32_t version = cursor.be32();
  const std::uint32_t flags = cursor.be32();
  const std::uint32_t slots = cursor.be32();
  const std::uint32_t pages = cursor.be32();
  const std::uint32_t payload = cursor.be32();
  if (cursor.incomplete()) return std::nullopt;
  // Where there are no pages, QEMU says the payload of the packet before.
  const bool fits = magic == kMultifdMagic && version == kMultifdVersion &&
                    (flags & ~kMultifdSync) == 0 && slots <= kMultifdSlotsMax && pages <= slots &&
                    (pages == 0 || payload == pages * kPageSize);
  if (!fits) return give_up(cursor);
  cursor.skip(kMultifdPacketRest);
  std::string_view block = cursor.name(kMultifdNameBytes);
  block = block.substr(0, block.find('\0'));
  std::vector<std::uint64_t> offsets(pages);
  for (std::uint64_t& offset : offsets) offset = cursor.be64();
  cursor.skip((slots - pages) * sizeof(std::uint64_t));
  if (cursor.incomplete()) return std::nullopt;
  multifd_offsets_ = std::move(offsets);
  multifd_taken_ = 0;
  // The list of blocks is in another stream; these are the names that libvirt's guests have.
  multifd_in_main_block_ = block == "pc.ram" || block == "ram-node0";
  return take(cursor, pages > 0 ? State::kMultifdPages : State::kMultifdPacket);
}

StreamParser::Step StreamParser::multifd_page(Cursor& cursor) {
  cursor.skip(kPageSize);
  if (cursor.incomplete()) return std::nullopt;
  const std::uint64_t offset = multifd_offsets_[multifd_taken_++] & ~kRamFlags;
  if (multifd_taken_ == multifd_offsets_.size()) state_ = State::kMultifdPacket;
  return StreamToken{.kind = StreamToken::Kind::kPage,
                     .bytes = cursor.taken(),
                     .header = offset,
                     .in_main_block = multifd_in_main_block_};
}

StreamParser::Step StreamParser::section(Cursor& cursor) {
  switch (cursor.u8()) {
    case kConfiguration:
      return configuration(cursor);
    case kSubsection:
      return configuration_subsection(cursor);
    case kCommand:
      return command(cursor);
    case kSectionStart:
      return section_start(cursor);
    case kSectionPart:
    case kSectionEnd:
      return section_of_ram(cursor, State::kRamRecords);
    case kFooter:
      return section_of_ram(cursor, State::kSections);
    default:
      return give_up(cursor);
  }
}

StreamParser::Step StreamParser::configuration(Cursor& cursor) {
  const std::uint32_t size = cursor.be32();
  if (size > kNameBytesMax) return give_up(cursor);
  cursor.skip(size);
  if (cursor.incomplete()) return std::nullopt;
  return take(cursor, State::kSections);
}

StreamParser::Step StreamParser::configuration_subsection(Cursor& cursor) {
  const std::string_view name = cursor.name(cursor.u8());
  cursor.skip(4);
  if (cursor.incomplete()) return std::nullopt;
  // "capabilities" appears only with those that change the layout of the RAM sections;
  // "target-page-bits" only with pages of another size.
  if (name != "configuration/uuid") return give_up(cursor);
  cursor.skip(16);
  if (cursor.incomplete()) return std::nullopt;
  return take(cursor, State::kSections);
}

StreamParser::Step StreamParser::command(Cursor& cursor) {
  const std::uint16_t command = cursor.be16();
  const std::uint16_t size = cursor.be16();
  if (cursor.incomplete()) return std::nullopt;
  skip_ = size;
  postcopy_ = postcopy_ || command == kCommandPostcopyAdvise;
  if (command == kCommandPackaged) {
    if (size != 4) return give_up(cursor);
    skip_ = cursor.be32();
    if (cursor.incomplete()) return std::nullopt;
  }
  return take(cursor, skip_ == 0 ? State::kSections : State::kSkip);
}

StreamParser::Step StreamParser::section_start(Cursor& cursor) {
  const std::uint32_t section = cursor.be32();
  const std::string_view name = cursor.name(cursor.u8());
  cursor.skip(4);
  const std::uint32_t version = cursor.be32();
  if (cursor.incomplete()) return std::nullopt;
  if (name != "ram" || version != kRamVersion || ram_section_) return give_up(cursor);
  ram_section_ = section;
  return take(cursor, State::kRamRecords);
}

StreamParser::Step StreamParser::section_of_ram(Cursor& cursor, State next) {
  const std::uint32_t section = cursor.be32();
  if (cursor.incomplete()) return std::nullopt;
  return section == ram_section_ ? take(cursor, next) : give_up(cursor);
}

StreamParser::Step StreamParser::ram_record(Cursor& cursor) {
  const std::uint64_t header = cursor.be64();
  if (cursor.incomplete()) return std::nullopt;
  switch (header & kRamFlags) {
    case kRamPage:
    case kRamPage | kRamContinues:
    case kRamZero:
    case kRamZero | kRamContinues:
      return ram_page(cursor, header);
    case kRamSizes:
      return ram_sizes(cursor, header);
    case kRamEndOfSection:
      return take(cursor, State::kSections);
    case kRamMultifdFlush:
      return take(cursor, State::kRamRecords);
    default:
      return give_up(cursor);
  }
}

StreamParser::Step StreamParser::ram_page(Cursor& cursor, std::uint64_t header) {
  std::string_view name;
  if ((header & kRamContinues) == 0) name = cursor.name(cursor.u8());
  const bool zero = (header & kRamZero) != 0;
  cursor.skip(zero ? 1 : kPageSize);
  if (cursor.incomplete()) return std::nullopt;
  // A record may fill a page with another byte than zero, but no supported QEMU writes one.
  if (zero && cursor.taken().back() != std::byte{0}) return give_up(cursor);
  if (!name.empty()) block_ = block_named(name);
  return StreamToken{.kind = zero ? StreamToken::Kind::kZeroPage : StreamToken::Kind::kPage,
                     .bytes = cursor.taken(),
                     .header = header,
                     .block = block_,
                     .in_main_block = block_ == main_block_};
}

/// A name that is in no list gets a number of its own.
std::uint32_t StreamParser::block_named(std::string_view name) const {
  const auto found = std::find(ram_blocks_.begin(), ram_blocks_.end(), name);
  return static_cast<std::uint32_t>(found - ram_blocks_.begin());
}

StreamParser::Step StreamParser::ram_sizes(Cursor& cursor, std::uint64_t header) {
  if (!ram_blocks_.empty()) return give_up(cursor);
  ram_blocks_bytes_ = header & ~kRamFlags;
  return take(cursor, ram_blocks_bytes_ == 0 ? State::kRamRecords : State::kRamBlocks);
}

StreamParser::Step StreamParser::ram_block(Cursor& cursor) {
  const std::string_view name = cursor.name(cursor.u8());
  const std::uint64_t size = cursor.be64();
  if (cursor.incomplete()) return std::nullopt;
  // Some capabilities add fields to the list without saying so in the stream. Then what is read
  // here as a name or a size does not fit, or the record behind the list has impossible flags.
  const bool fits = !name.empty() && is_printable(name) && size <= ram_blocks_bytes_ &&
                    size % kPageSize == 0 && ram_blocks_.size() < kRamBlocksMax;
  if (!fits) return give_up(cursor);
  if (size > main_block_bytes_) {
    main_block_bytes_ = size;
    main_block_ = static_cast<std::uint32_t>(ram_blocks_.size());
  }
  ram_blocks_.emplace_back(name);
  ram_blocks_bytes_ -= size;
  return take(cursor, ram_blocks_bytes_ == 0 ? State::kRamRecords : State::kRamBlocks);
}

}  // namespace samepage::migrator
