#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace samepage::migrator {

/// A file that `virsh save` wrote, in its three parts: the domain's XML, libvirt's cookie, and the
/// state of QEMU as a migration stream.
///
///     magic 16 | u32 version = 2 | data size | was running | compressed | cookie offset | 14
///     unused XML, 0 [, cookie, 0] [, padding], up to the data size QEMU's stream
///
/// Numbers are little-endian here (libvirt writes its host's order); the cookie offset counts from
/// the XML's begin, and 0 stands for no cookie. Tried with libvirt 9.0.
struct SaveImage {
  std::string xml;
  std::string cookie;  ///< Empty: none.
  bool was_running = false;
  std::span<const std::byte> stream;  ///< Borrowed.

  /// Borrows `file`. kCorrupt: it is no save image, or it is damaged. kInvalid: it is compressed,
  /// or of another version; the message says how to have libvirt write one that can be read.
  static Result<SaveImage> parse(std::span<const std::byte> file);

  /// The file of these parts.
  std::vector<std::byte> serialize() const;

  static constexpr std::size_t kHeaderBytes = 92;
  static constexpr std::size_t kDataBytesMax = std::size_t{16} << 20U;
};

/// A migration stream without the pages of one RAM block, which its reader then finds in the
/// block's file; also without a page's being zero. Everything else is as it was. Memory and time
/// are those of the rest.
///
/// kCorrupt: the stream cannot be understood up to the end of its RAM, so that something else could
/// be lost. kNotFound: it has no pages of such a block.
Result<std::vector<std::byte>> without_block(std::span<const std::byte> stream,
                                             std::string_view block);

}  // namespace samepage::migrator
