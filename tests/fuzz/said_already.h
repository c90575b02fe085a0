#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// A connection whose peer said all this and left: `piece` bytes can be read at a time, and what is
/// written goes nowhere. The bytes are borrowed. Threads: one at a time.
class SaidAlready final : public ByteStream {
 public:
  SaidAlready(std::span<const std::byte> bytes, std::size_t piece) : bytes_(bytes), piece_(piece) {}

  Result<std::size_t> read_some(std::span<std::byte> buffer, Deadline /*deadline*/) override {
    const std::size_t size = std::min({buffer.size(), bytes_.size(), piece_});
    std::copy_n(bytes_.begin(), size, buffer.begin());
    bytes_ = bytes_.subspan(size);
    return size;
  }
  Result<void> write_all(std::span<const std::byte> /*bytes*/, Deadline /*deadline*/) override {
    return {};
  }
  Result<void> finish_writing() override { return {}; }
  void shut_down() override {}

 private:
  std::span<const std::byte> bytes_;
  const std::size_t piece_;
};

}  // namespace samepage::migrator
