#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace samepage::fingerprinter {

/// The blocks of code that an emulated guest executed, in order, from the log that QEMU writes with
/// `-d exec,nochain`. Addresses count from the first block's, so that KASLR does not tell two
/// traces of one kernel apart.
///
/// Threads: one.
class BlockTrace {
 public:
  /// Takes down at most so many blocks.
  explicit BlockTrace(std::size_t blocks_max) : blocks_max_(blocks_max) {}

  /// The next piece of the log, which may end within a line. What is no line of a block is passed
  /// over.
  void add(std::string_view log);

  bool is_full() const { return blocks_.size() >= blocks_max_; }
  const std::vector<std::uint64_t>& blocks() const { return blocks_; }

 private:
  void add_line(std::string_view line);

  std::size_t blocks_max_;
  std::optional<std::uint64_t> first_;
  std::string partial_;  ///< Of a line.
  std::vector<std::uint64_t> blocks_;
};

/// Lengths, in blocks: how many there are of 1, of 2 to 3, of 4 to 7, and so on.
struct Lengths {
  std::array<std::uint64_t, 32> by_power{};
  std::uint64_t count = 0;
  std::uint64_t sum = 0;
  std::uint64_t longest = 0;

  void add(std::uint64_t length);

  /// The upper end of the class that the median is in; 0 when there are none.
  std::uint64_t median() const;
};

/// How alike the execution of two guests was.
struct ExecutionLikeness {
  std::uint64_t blocks = 0;        ///< Of both together.
  std::uint64_t in_step = 0;       ///< Of both together, executed in the same order.
  std::uint64_t in_any_order = 0;  ///< Of both together, which the other executed as well.
  Lengths equal_runs;              ///< Between two bursts.
  Lengths bursts;                  ///< Stretches that differ, by the longer of the two sides.
};

/// Walks along both traces. Where they part, the walk goes on where 16 blocks in a row are the same
/// again, looking at most 65536 blocks ahead on either side. Time and memory are linear but for
/// stretches that nowhere meet again.
ExecutionLikeness compare(const BlockTrace& a, const BlockTrace& b);

}  // namespace samepage::fingerprinter
