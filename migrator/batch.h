#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/page_digest.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "migrator/packed_bytes.h"
#include "migrator/stream_parser.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// The most of QEMU's stream that one batch stands for.
inline constexpr std::size_t kBatchStreamBytesMax = 1U << 20U;

/// The most pages that fit into one batch.
inline constexpr std::size_t kBatchRefsMax = kBatchStreamBytesMax / kPageSize;

/// What a batch is made of, in the order of the stream. Every kind but the first stands for page
/// records: a header of 8 bytes each, then the page.
enum class BatchKind : std::uint8_t {
  kLiteral = 0,  ///< Bytes from the literals.
  kZeros = 1,    ///< Zero pages, whose records end in one zero byte.
  kPages = 2,    ///< Pages from the literals.
  kFound = 3,    ///< Pages that the target finds by their hashes.
  kPlaced = 4,   ///< Pages that the target's base has at the same numbers.
  kCopies = 5,   ///< Pages that went before in the stream.
  kDeltas = 6,   ///< Pages of which an older version went before: the differences are literals.
};

/// Which stretch of the stream a batch stands for.
struct BatchHeader {
  std::uint64_t sequence = 0;  ///< 0, 1, 2, ...
  std::uint64_t begin = 0;     ///< Of the stretch, in QEMU's stream.
  std::size_t size = 0;        ///< Of the stretch, 1 to kBatchStreamBytesMax.
  PageDigest mac;              ///< Of the stretch, see stretch_mac().
};

/// Keyed BLAKE3 of a stretch and its sequence number: stretches that agree, in order, are the
/// stream. Each is verified for itself, so several may be under way in parallel.
PageDigest stretch_mac(const DigestKey& key, std::uint64_t sequence,
                       std::span<const std::byte> stretch);

/// A BATCH message's body: `head`, then `tail`, which are the literals.
struct EncodedBatch {
  std::vector<std::byte> head;
  StreamBytes tail;
  std::vector<std::uint32_t> ref_offsets;  ///< Of its found and placed pages, in the stretch.
  std::size_t literal_bytes = 0;
  bool packed = false;  ///< Compression of the literals paid.

  std::size_t size() const { return head.size() + tail.bytes.size(); }
};

/// Encodes one stretch of QEMU's stream, token by token (docs/formats/migrator.md).
/// Borrows the tokens' bytes until finish(). Threads: one at a time.
class BatchEncoder {
 public:
  /// The tokens' bytes must not exceed kBatchStreamBytesMax together.
  void add_literal(std::span<const std::byte> bytes);
  void add_zero_page(const StreamToken& record);
  void add_page(const StreamToken& record);
  void add_found(const StreamToken& record, PageHash hash);
  void add_placed(const StreamToken& record);

  /// `place`: where in QEMU's stream the same page began before; it lies before this stretch.
  void add_copy(const StreamToken& record, std::uint64_t place);

  /// False, and nothing added, when the difference to the older version at `place` takes more than
  /// `bytes_max`.
  bool add_delta(const StreamToken& record, std::uint64_t place, PageView older,
                 std::size_t bytes_max);

  /// The batch of all that was added; the next one begins.
  EncodedBatch finish(const BatchHeader& header, int zstd_level);

 private:
  struct Op {
    BatchKind kind = BatchKind::kLiteral;
    bool bare = false;  ///< A page record whose header is in a literal before it.
    std::uint64_t count = 0;
    std::uint64_t page = 0;
  };

  void begin_page(BatchKind kind, const StreamToken& record);
  void extend(BatchKind kind, bool bare, std::uint64_t count, std::uint64_t page);
  void add_part(std::span<const std::byte> literal);
  void write_ops(ByteWriter& head) const;
  StreamBytes copy_literals(ByteWriter& head);
  StreamBytes pack_literals(int zstd_level, ByteWriter& head, bool& packed);
  void gather_literals(std::span<std::byte> to) const;
  void clear();

  BytePacker packer_;
  std::vector<Op> ops_;
  std::vector<PageHash> hashes_;
  std::vector<std::uint64_t> places_;
  std::vector<std::uint32_t> ref_offsets_;
  std::vector<std::span<const std::byte>> literals_;
  std::deque<std::vector<std::byte>> deltas_;  ///< That literals lie in.
  std::size_t literal_bytes_ = 0;
  SlabScratch gathered_;
  SlabPool slabs_;
  std::size_t stream_bytes_ = 0;
};

/// The batch of a stretch that goes as it is, and is not copied: a pipe's.
EncodedBatch pipe_batch(const BatchHeader& header, StreamBytes stretch);

/// A page that is missing in a decoded stretch.
struct BatchGap {
  BatchKind kind = BatchKind::kFound;  ///< kFound to kDeltas.
  std::uint32_t offset = 0;            ///< In the stretch; a whole page fits there.
  std::uint64_t page = 0;              ///< Its number in its RAM block.
  PageHash hash;                       ///< Of kFound.
  std::uint64_t place = 0;           ///< In QEMU's stream, of kCopies and kDeltas; before `begin`.
  std::span<const std::byte> delta;  ///< Of kDeltas: begins with it.

  /// The target looks for it on its host, and may have to ask for it.
  bool is_ref() const { return kind == BatchKind::kFound || kind == BatchKind::kPlaced; }
};

struct BatchBody {
  BatchHeader header;
  std::span<const std::byte> rest;  ///< For decode_batch(); borrowed from the body.

  /// A pipe's: the end of `rest` is the stretch itself. No later batch refers to it.
  bool is_pipe() const;
};
/// kCorrupt: not a batch's header, or of another size than it may have.
Result<BatchBody> decode_batch_header(std::span<const std::byte> body);

/// Lays the stretch out in `stretch`, which has the header's size, and returns its gaps by offset;
/// none overlaps another. Deltas are borrowed from `unpacker`, and where `rest` is plain from that.
/// kCorrupt: the body is not a batch.
Result<std::vector<BatchGap>> decode_batch(const BatchBody& body, ByteUnpacker& unpacker,
                                           std::span<std::byte> stretch);

}  // namespace samepage::migrator
