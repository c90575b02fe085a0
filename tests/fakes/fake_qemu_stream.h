#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "core/page.h"

namespace samepage::fakes {

/// Writes a migration stream as QEMU 7.2 to 10.0 does, record by record.
class FakeQemuStream {
 public:
  static constexpr std::uint32_t kRamSection = 2;

  enum Flag : std::uint64_t {
    kZero = 0x02,
    kSizes = 0x04,
    kPage = 0x08,
    kEndOfSection = 0x10,
    kContinues = 0x20,
    kXbzrle = 0x40,
    kMultifdFlush = 0x200,
  };

  FakeQemuStream& number(std::uint64_t value, std::size_t size) {
    for (std::size_t i = size; i-- > 0;) {
      bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
    return *this;
  }
  FakeQemuStream& u8(std::uint64_t value) { return number(value, 1); }
  FakeQemuStream& be16(std::uint64_t value) { return number(value, 2); }
  FakeQemuStream& be32(std::uint64_t value) { return number(value, 4); }
  FakeQemuStream& be64(std::uint64_t value) { return number(value, 8); }
  FakeQemuStream& raw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  FakeQemuStream& text(std::string_view text) { return raw(std::as_bytes(std::span(text))); }
  FakeQemuStream& name(std::string_view name) { return u8(name.size()).text(name); }

  FakeQemuStream& file_header() { return be32(0x5145564D).be32(3); }
  FakeQemuStream& configuration(std::string_view machine) {
    return u8(0x07).be32(machine.size()).text(machine);
  }
  FakeQemuStream& command(std::uint16_t command, std::span<const std::byte> data) {
    return u8(0x08).be16(command).be16(data.size()).raw(data);
  }
  FakeQemuStream& section_start(std::string_view device, std::uint32_t version) {
    return u8(0x01).be32(kRamSection).name(device).be32(0).be32(version);
  }
  FakeQemuStream& section_part() { return u8(0x02).be32(kRamSection); }
  FakeQemuStream& section_end() { return u8(0x03).be32(kRamSection); }
  FakeQemuStream& footer() { return u8(0x7E).be32(kRamSection); }

  FakeQemuStream& ram_sizes(std::uint64_t total) { return be64(total | kSizes); }
  FakeQemuStream& ram_block(std::string_view block, std::uint64_t size) {
    return name(block).be64(size);
  }
  FakeQemuStream& end_of_section() { return be64(kEndOfSection); }

  /// The first record of a block in a section names it; the others do not.
  FakeQemuStream& first_page(std::string_view block, std::uint64_t offset, PageView page) {
    return be64(offset | kPage).name(block).raw(page);
  }
  FakeQemuStream& page(std::uint64_t offset, PageView page) {
    return be64(offset | kPage | kContinues).raw(page);
  }
  FakeQemuStream& first_zero(std::string_view block, std::uint64_t offset) {
    return be64(offset | kZero).name(block).u8(0);
  }
  FakeQemuStream& zero(std::uint64_t offset) { return be64(offset | kZero | kContinues).u8(0); }

  /// The devices' state, the end mark and the description, which nobody can tell apart.
  FakeQemuStream& devices(std::span<const std::byte> state) {
    return u8(0x04)
        .be32(3)
        .name("cpu_common")
        .be32(0)
        .be32(1)
        .raw(state)
        .u8(0x00)
        .u8(0x06)
        .be32(2)
        .text("{}");
  }

  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> view() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

inline std::vector<std::byte> random_bytes(std::size_t size, std::mt19937_64& random) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// A guest of `pages` pages in one block, all in one round: about a quarter zero, the others with
/// content of `random`, then the devices' state. `sent` gets the content of each page record.
inline std::vector<std::byte> fake_guest_stream(std::size_t pages, std::mt19937_64& random,
                                                std::vector<std::vector<std::byte>>* sent) {
  FakeQemuStream stream;
  stream.file_header().configuration("pc-q35-7.2").command(1, {});
  const auto ping = random_bytes(4, random);
  stream.command(2, ping).section_start("ram", 4).ram_sizes(pages * kPageSize);
  stream.ram_block("pc.ram", pages * kPageSize).end_of_section().footer().section_part();
  for (std::size_t i = 0; i < pages; ++i) {
    const std::uint64_t offset = i * kPageSize;
    if (random() % 4 == 0) {
      i == 0 ? stream.first_zero("pc.ram", offset) : stream.zero(offset);
      continue;
    }
    // Half of the page repeats, so that compression has something to do.
    auto content = random_bytes(kPageSize / 2, random);
    content.resize(kPageSize, content.back());
    const PageView page = std::span<const std::byte>(content).first<kPageSize>();
    i == 0 ? stream.first_page("pc.ram", offset, page) : stream.page(offset, page);
    if (sent != nullptr) sent->push_back(content);
  }
  stream.end_of_section().footer().section_end().end_of_section().footer();
  stream.devices(random_bytes(3000, random));
  return {stream.view().begin(), stream.view().end()};
}

/// A stream of multifd as QEMU 7.2 writes it: a hello, a packet of `pages` pages, one that only
/// says that a round ended, and a last one of one page. `held`, if any, gets a copy of every page.
inline std::vector<std::byte> fake_multifd_stream(std::size_t pages, std::mt19937_64& random,
                                                  std::vector<std::vector<std::byte>>* held,
                                                  std::uint32_t flags = 0,
                                                  std::uint32_t slots = 128,
                                                  std::string_view block = "pc.ram") {
  std::vector<std::byte> name(256);
  std::ranges::copy(std::as_bytes(std::span(block)), name.begin());
  FakeQemuStream stream;
  stream.be32(0x11223344).be32(1).raw(std::vector<std::byte>(56, std::byte{9}));
  const auto packet = [&](std::uint32_t flag, std::size_t count) {
    stream.be32(0x11223344).be32(1).be32(flag).be32(slots).be32(count);
    // A packet without pages says the payload of the one before.
    stream.be32((count == 0 ? pages : count) * kPageSize)
        .be64(0)
        .raw(std::vector<std::byte>(32, std::byte{7}))
        .raw(name);
    for (std::uint32_t slot = 0; slot < slots; ++slot) stream.be64(slot * kPageSize);
    for (std::size_t i = 0; i < count; ++i) {
      const std::vector<std::byte> page = random_bytes(kPageSize, random);
      stream.raw(page);
      if (held != nullptr) held->push_back(page);
    }
  };
  packet(flags, pages);
  packet(1, 0);
  packet(flags, 1);
  return {stream.view().begin(), stream.view().end()};
}

}  // namespace samepage::fakes
