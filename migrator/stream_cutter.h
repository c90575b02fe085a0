#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/result.h"
#include "migrator/byte_stream.h"
#include "migrator/relay.h"
#include "migrator/sent_places.h"
#include "migrator/stream_parser.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// A piece of the stream, and for a page where its version before this one was sent.
struct CutToken {
  StreamToken token;
  std::uint64_t older = kNowhere;
};

/// A stretch of QEMU's stream that will be one batch. Its tokens are its bytes, in order.
struct CutStretch {
  std::uint64_t sequence = 0;
  std::uint64_t begin = 0;  ///< In QEMU's stream.
  StreamBytes bytes;
  std::vector<CutToken> tokens;
};

/// Reads QEMU's stream into slabs and cuts it into stretches, where it is understood between two
/// records. The bytes stay where they were read. Threads: one at a time.
class StreamCutter {
 public:
  /// `qemu`, `slabs` and `passes` are borrowed; `passes` may be null.
  StreamCutter(ByteStream& qemu, SlabPool& slabs, const RelayOptions& options,
               PassWatch* passes = nullptr);

  /// The next stretch, of at most `size_max` bytes: as many as come until it is full, QEMU is
  /// silent for a moment, or has closed its stream. Nothing: it has closed it. Errors: QEMU's.
  Result<std::optional<CutStretch>> next(std::size_t size_max);

  /// What the stretches so far have together.
  std::uint64_t stream_bytes() const { return stream_begin_; }
  std::uint64_t stretches() const { return sequence_; }

 private:
  void make_room(std::size_t size_max);
  Result<void> fill(std::size_t size_max);
  void tokenize();
  void drain();
  void add(const StreamToken& token);
  void follow_passes(const StreamToken& page);
  std::span<std::byte> unparsed() const;

  ByteStream& qemu_;
  SlabPool& slabs_;
  const RelayOptions options_;
  PassWatch* const passes_;
  StreamParser parser_;
  LatestVersions versions_;

  std::shared_ptr<Slab> slab_;
  std::size_t begin_ = 0;   ///< Of the stretch under way, in the slab.
  std::size_t parsed_ = 0;  ///< [begin_, parsed_) is in the tokens.
  std::size_t filled_ = 0;  ///< [begin_, filled_) was read from QEMU.
  std::vector<CutToken> tokens_;
  std::uint64_t stream_begin_ = 0;
  std::uint64_t sequence_ = 0;
  bool ended_ = false;

  std::uint64_t last_page_ = 0;
  bool is_first_pass_ = true;
};

}  // namespace samepage::migrator
