#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/sharing_domain.h"
#include "fingerprinter/bloom_filter.h"
#include "migrator/base_pages.h"
#include "migrator/batch.h"
#include "migrator/hit_watch.h"
#include "migrator/sent_places.h"
#include "migrator/stream_cutter.h"
#include "migrator/stream_history.h"

namespace samepage::migrator {

/// What the source knows that the target has, and what it has done with it so far: shared by a
/// relay's encoders. Threads: as its members say; `filter` is set before any encoder begins.
struct TargetKnowledge {
  TargetKnowledge(const SharingDomain& sharing, DigestKey mac_key, std::uint64_t reach)
      : domain(sharing), key(mac_key), history(reach), contents(reach) {}

  const SharingDomain domain;
  const DigestKey key;  ///< Of the stretches' MACs.
  std::optional<fingerprinter::BloomFilter> filter;
  std::unique_ptr<const BasePages> base_owner;  ///< Of `base`, set once.
  std::atomic<const BasePages*> base{nullptr};
  StreamHistory history;
  SentContents contents;
  HitWatch hits;

  std::atomic<std::uint64_t> page_refs{0};
  std::atomic<std::uint64_t> page_deltas{0};
  std::atomic<std::uint64_t> page_literals{0};
  std::atomic<std::uint64_t> zero_pages{0};
};

/// What is done with a stretch so that it costs less on the wire.
enum class Effort : std::uint8_t {
  kPipe,    ///< Nothing: it goes as it is, and neither side remembers it.
  kPack,    ///< It is packed, and its pages compared with their older versions.
  kLookUp,  ///< Its pages are also looked up.
};

/// A stretch as its batch, ready to be sent.
struct EncodedStretch {
  CutStretch stretch;
  BatchHeader header;
  EncodedBatch batch;
};

/// Makes stretches into batches: finds what the target has, or nearly has, and packs the rest.
/// Threads: one at a time; several encoders share `knowledge`, which outlives them.
class StretchEncoder {
 public:
  explicit StretchEncoder(TargetKnowledge& knowledge) : known_(knowledge) {}

  EncodedStretch encode(CutStretch stretch, Effort effort, int zstd_level);

 private:
  EncodedBatch pack(const CutStretch& stretch, const BatchHeader& header, bool looks_up,
                    int zstd_level);
  void count(const CutStretch& stretch);
  void look_up(const CutStretch& stretch);
  void add_tokens(const CutStretch& stretch, const BasePages* base);
  void add_page(const CutToken& cut, const SentContents::Page* looked_up, const BasePages* base);
  bool add_known(const CutToken& cut, const SentContents::Page& page, const BasePages* base);
  bool add_older(const CutToken& cut);
  bool holds(std::uint64_t place, PageView page);

  TargetKnowledge& known_;
  BatchEncoder batch_;
  std::uint64_t begin_ = 0;
  std::vector<SentContents::Page> pages_;
  std::size_t hits_ = 0;
};

}  // namespace samepage::migrator
