#pragma once

#include <cstdint>
#include <span>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// A band's bitmap in the shortest of three forms: as it is, or the gaps between its set (or its
/// empty) cells in a Golomb-Rice code (Golomb 1966, Rice 1971), which random bitmaps cannot be
/// written much shorter than. docs/formats/fingerprinter.md has the bits.
void write_band(std::span<const std::uint64_t> band, ByteWriter& writer);

/// Fills a band of zeros. kCorrupt: the bytes are not what write_band() writes for this size.
Result<void> read_band(ByteReader& reader, std::span<std::uint64_t> band);

}  // namespace samepage::fingerprinter
