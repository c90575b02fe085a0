#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page_digest.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "migrator/packed_bytes.h"
#include "migrator/stream_parser.h"

namespace samepage::migrator {

/// The most of QEMU's stream that one batch stands for.
inline constexpr std::size_t kBatchStreamBytesMax = 1U << 20U;

/// The most pages that fit into one batch.
inline constexpr std::size_t kBatchRefsMax = kBatchStreamBytesMax / kPageSize;

/// A page that the target finds on its own host: by the hash, verified by the digest.
struct PageRef {
  PageHash hash;
  PageDigest digest;
};

/// What a batch is made of, in the order of the stream.
struct BatchOp {
  enum class Kind : std::uint8_t {
    kLiteral = 0,   ///< `count` bytes from the literals.
    kRefs = 1,      ///< `count` page records: a header each, then the referenced page.
    kZeros = 2,     ///< `count` zero-page records of 9 bytes: a header each, then a zero.
    kBareRefs = 3,  ///< `count` referenced pages without headers.
  };

  Kind kind = Kind::kLiteral;
  std::uint64_t count = 0;
  std::uint64_t header = 0;  ///< Of the first record; each next one is a page further.
};

/// Encodes a stretch of QEMU's stream, token by token, as one BATCH message's body
/// (docs/formats/migrator.md).
/// Threads: one at a time.
class BatchBuilder {
 public:
  explicit BatchBuilder(int zstd_level) : packer_(zstd_level) {}

  /// The tokens' bytes must not exceed kBatchStreamBytesMax together.
  void add_literal(std::span<const std::byte> bytes);
  void add_zero_page(const StreamToken& record);
  void add_page_ref(const StreamToken& record, const PageRef& ref);

  std::size_t stream_bytes() const { return stream_bytes_; }

  /// Where the referenced pages lie in the batch's stretch of the stream.
  std::span<const std::uint32_t> ref_offsets() const { return ref_offsets_; }

  /// The body, for the batch number `sequence`; `mac` is the stream's up to the end of this batch.
  /// Begins an empty batch.
  std::vector<std::byte> finish(std::uint64_t sequence, const PageDigest& mac);

 private:
  void extend(BatchOp::Kind kind, std::uint64_t count, std::uint64_t header);

  BytePacker packer_;
  std::vector<BatchOp> ops_;
  std::vector<PageRef> refs_;
  std::vector<std::uint32_t> ref_offsets_;
  std::vector<std::byte> literals_;
  std::size_t stream_bytes_ = 0;
};

/// A stretch of QEMU's stream with holes where the referenced pages belong.
struct Batch {
  struct Hole {
    std::uint32_t offset = 0;  ///< In `stream`; a whole page fits there.
    PageRef ref;
  };

  std::uint64_t sequence = 0;
  std::vector<std::byte> stream;
  std::vector<Hole> holes;  ///< By offset; none overlaps another.
  PageDigest mac;           ///< Of QEMU's whole stream up to the end of this batch.
};

/// kCorrupt: the body is not a batch. Takes at most a few times kBatchStreamBytesMax of memory.
Result<Batch> decode_batch(std::span<const std::byte> body, ByteUnpacker& unpacker);

}  // namespace samepage::migrator
