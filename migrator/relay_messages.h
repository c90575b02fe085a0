#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "migrator/base_pages.h"
#include "migrator/packed_bytes.h"

namespace samepage::migrator {

// The bodies of the relays' messages, except BATCH's (see batch.h). docs/formats/migrator.md says
// how they look and when they are sent. Every decode function is a pure function of its arguments
// and says kCorrupt for what no encode function writes.

enum class MessageType : std::uint8_t {
  kHello = 1,       ///< Both ways, first.
  kFilter = 2,      ///< Target to source: a BloomFilter of its pages, or nothing.
  kBatch = 3,       ///< Source to target.
  kMissing = 4,     ///< Target to source: references it cannot resolve.
  kResend = 5,      ///< Source to target: those pages, or those that kDoubt shows to differ.
  kAck = 6,         ///< Target to source: delivered to QEMU.
  kEnd = 7,         ///< Source to target: QEMU closed its stream.
  kReturnPath = 8,  ///< Target to source: bytes of QEMU's answer; none when QEMU closed its side.
  kBase = 9,        ///< Target to source: what a guest like this one has where (BasePages).
  kDoubt = 10,      ///< Target to source: a batch does not add up; what its references became.
  kArrived = 11,    ///< Target to source: a batch has come across, and waits for its turn.
};

/// No larger body is sent or taken. Zero for what is no type.
std::size_t body_bytes_max(MessageType type);

/// `history_bytes`: how much of the stream that went before the sender keeps, to copy pages from.
struct Hello {
  std::uint64_t history_bytes = 0;
};
std::vector<std::byte> encode_hello(const Hello& hello);

/// kCorrupt: the peer is no relay. kInvalid: it speaks another version.
Result<Hello> decode_hello(std::span<const std::byte> body);

std::vector<std::byte> encode_base(const BasePages& base, BytePacker& packer);
Result<BasePages> decode_base(std::span<const std::byte> body, ByteUnpacker& unpacker);

/// Which of a batch's references the target needs as pages, by their numbers in the batch.
struct MissingPages {
  std::uint64_t sequence = 0;
  std::vector<std::uint32_t> refs;  ///< Ascending, at least one, below kBatchRefsMax.
};
std::vector<std::byte> encode_missing(const MissingPages& missing);
Result<MissingPages> decode_missing(std::span<const std::byte> body);

/// Sixteen bytes of a page's digest are enough to tell which pages differ by accident; that they
/// then are the right ones, the batch's MAC proves.
using ShortDigest = std::array<std::byte, 16>;
ShortDigest shorten(const PageDigest& digest);

/// What the target has in the place of each of a batch's references.
struct DoubtedBatch {
  std::uint64_t sequence = 0;
  std::vector<ShortDigest> digests;  ///< One for each reference, at most kBatchRefsMax.
};
std::vector<std::byte> encode_doubt(const DoubtedBatch& doubt);
Result<DoubtedBatch> decode_doubt(std::span<const std::byte> body);

struct ResentPages {
  std::uint64_t sequence = 0;
  std::vector<std::uint32_t> refs;  ///< As in MissingPages, but there may be none.
  std::vector<std::byte> pages;     ///< Their pages, whole, in this order.
};
std::vector<std::byte> encode_resend(const ResentPages& resent, BytePacker& packer);
Result<ResentPages> decode_resend(std::span<const std::byte> body, ByteUnpacker& unpacker);

/// This batch and all before it are delivered to QEMU.
struct Ack {
  std::uint64_t sequence = 0;
  std::uint64_t template_pages = 0;  ///< That were left out so far: the guest's template has them.
};
std::vector<std::byte> encode_ack(const Ack& ack);
Result<Ack> decode_ack(std::span<const std::byte> body);

/// The number of a batch.
std::vector<std::byte> encode_arrived(std::uint64_t sequence);
Result<std::uint64_t> decode_arrived(std::span<const std::byte> body);

struct StreamEnd {
  std::uint64_t sequence = 0;
  std::uint64_t stream_bytes = 0;  ///< Of the whole stream.
  PageDigest mac;                  ///< See end_mac().
};
/// Keyed BLAKE3 of how many batches and bytes there were: of a stream whose batches were verified,
/// it proves that this is the end.
PageDigest end_mac(const DigestKey& key, const StreamEnd& end);
std::vector<std::byte> encode_end(const StreamEnd& end);
Result<StreamEnd> decode_end(std::span<const std::byte> body);

}  // namespace samepage::migrator
