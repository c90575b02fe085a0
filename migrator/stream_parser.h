#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/page.h"

namespace samepage::migrator {

/// A piece of QEMU's migration stream.
struct StreamToken {
  enum class Kind : std::uint8_t {
    kBytes,     ///< Anything.
    kPage,      ///< A record with a page's content, which is its last 4096 bytes.
    kZeroPage,  ///< A record that says that a page is zero.
  };

  Kind kind = Kind::kBytes;
  std::span<const std::byte> bytes;  ///< All of the piece, borrowed from the parser's input.
  std::uint64_t header = 0;          ///< Of a page: its offset in its block, and flags below 4096.
  std::uint32_t block = 0;           ///< Of a page: its RAM block's number in QEMU's list, from 0.
  bool in_main_block = false;        ///< Of a page: its block is the largest, the guest's memory
                                     ///< proper, whose pages a GuestMemory numbers alike.

  PageView page() const { return bytes.last<kPageSize>(); }
  std::span<const std::byte> before_page() const { return bytes.first(bytes.size() - kPageSize); }
};

/// Cuts QEMU's migration stream (7.2 to 10.0) into tokens, just well enough to see guest pages: a
/// main stream, or one of multifd's without compression.
///
/// Invariant: the tokens' bytes, in order, are the input, whatever it is. What the parser does not
/// understand makes the rest of the stream kBytes; a wrong guess costs savings, never a byte.
///
/// Ownership: it keeps no input, except for up to one record after drain(). The caller keeps what
/// was not taken yet and offers it again, with more behind it.
/// Threads: one at a time.
class StreamParser {
 public:
  /// The longest record that next() may wait for.
  static constexpr std::size_t kRecordBytesMax = 8 + 1 + 255 + kPageSize;

  /// The token at the front of `input`. Nothing when `input` is empty or ends within a record: call
  /// again with the same bytes and more behind them.
  std::optional<StreamToken> next(std::span<const std::byte> input);

  /// Takes the whole of an `input` for which next() had nothing, because it cannot wait. The record
  /// will be understood when its rest comes, but is kBytes altogether.
  StreamToken drain(std::span<const std::byte> input);

  /// The size of the guest's memory proper; 0 until QEMU has told it.
  std::uint64_t main_block_bytes() const { return main_block_bytes_; }

  /// QEMU's name of that block; empty until QEMU has told it.
  std::string_view main_block_name() const {
    return ram_blocks_.empty() ? std::string_view() : ram_blocks_[main_block_];
  }

  /// The source has announced post-copy.
  bool postcopy() const { return postcopy_; }

  /// The rest of the stream is not looked at any more. Normal behind the guest's RAM, where the
  /// devices' state follows.
  bool opaque() const { return state_ == State::kOpaque; }

 private:
  enum class State : std::uint8_t {
    kFileHeader,
    kSections,  ///< A section, a command or a footer is next.
    kRamRecords,
    kRamBlocks,  ///< The list of RAM blocks in the first RAM section.
    kSkip,       ///< `skip_` bytes of known length and no interest.
    kMultifdPacket,
    kMultifdPages,  ///< Pages without headers, one for each of `multifd_offsets_` that is left.
    kOpaque,
  };
  class Cursor;
  using Step = std::optional<StreamToken>;

  Step resume(std::span<const std::byte> input);
  Step record(std::span<const std::byte> input);
  Step file_header(Cursor& cursor);
  Step multifd_hello(Cursor& cursor);
  Step multifd_packet(Cursor& cursor);
  Step multifd_page(Cursor& cursor);
  Step section(Cursor& cursor);
  Step configuration(Cursor& cursor);
  Step configuration_subsection(Cursor& cursor);
  Step command(Cursor& cursor);
  Step section_start(Cursor& cursor);
  Step section_of_ram(Cursor& cursor, State next);
  Step ram_sizes(Cursor& cursor, std::uint64_t header);
  Step ram_block(Cursor& cursor);
  Step ram_record(Cursor& cursor);
  Step ram_page(Cursor& cursor, std::uint64_t header);
  std::uint32_t block_named(std::string_view name) const;
  Step skip(std::span<const std::byte> input);
  Step take(const Cursor& cursor, State next);
  Step give_up(const Cursor& cursor);

  State state_ = State::kFileHeader;
  std::uint64_t skip_ = 0;
  bool postcopy_ = false;
  std::optional<std::uint32_t> ram_section_;
  std::uint64_t ram_blocks_bytes_ = 0;          ///< Of blocks that the list has not named yet.
  std::vector<std::uint64_t> multifd_offsets_;  ///< Of the packet's pages, in their block.
  std::size_t multifd_taken_ = 0;
  bool multifd_in_main_block_ = false;
  std::vector<std::string> ram_blocks_;
  std::uint32_t block_ = 0;  ///< The one that the last page record named.
  std::uint32_t main_block_ = 0;
  std::uint64_t main_block_bytes_ = 0;
  std::vector<std::byte> drained_;  ///< The front of a record that was given out as bytes.
};

}  // namespace samepage::migrator
