#include "imagestore/garbage_collector.h"

#include <unordered_set>
#include <utility>
#include <vector>

#include "core/byte_reader.h"
#include "imagestore/extent.h"
#include "imagestore/manifest.h"

// Why nothing in use is ever swept. A writer that builds on an object it found (a page's extent, a
// node that was there before) keeps it in the transaction that stores the rest, which digs it up or
// says that it is gone; then it names its version. An object is swept by one statement that asks
// for its burial to be old enough: so either the writer came first, and the object is not buried
// (or was buried again since, and has the whole grace time before it), or the sweep came first, and
// the writer is told. Between keeping and naming lie seconds, or for an import of hours, which then
// keeps all again; the grace time is longer. Marking reads the names after the list of the buried,
// so whoever was named before the burial grew old is seen.
//
// What leads to others is buried a second before them, and so swept before them: a leaf that is
// there has its extents, whenever a collection is killed.

namespace samepage::imagestore {
namespace {

class Collection {
 public:
  Collection(ImageStore& store, const GarbageOptions& options, const Clock& clock)
      : store_(store),
        options_(options),
        now_(std::chrono::floor<std::chrono::seconds>(clock.today())) {}

  Result<GarbageReport> run();

 private:
  struct Buried {
    ObjectName name;
    std::chrono::sys_seconds at;
    std::uint64_t bytes = 0;
  };

  Result<void> list();
  Result<void> mark();
  Result<void> mark_version(const VersionId& version);
  Result<bool> is_foreign_root(const VersionId& version);
  Result<void> sort_out();
  Result<void> dig_up(const ObjectName& name);
  Result<void> bury(const std::vector<ObjectName>& names, std::chrono::sys_seconds at);
  Result<void> tell_progress(std::uint64_t bytes);

  ImageStore& store_;
  const GarbageOptions& options_;
  const std::chrono::sys_seconds now_;
  GarbageReport report_;
  ImportProgress progress_;
  std::unordered_set<ObjectName> live_;
  std::vector<Buried> buried_;
};

Result<void> Collection::tell_progress(std::uint64_t bytes) {
  constexpr std::uint64_t kStepBytes = 64U << 20U;
  const std::uint64_t before = progress_.bytes_done;
  progress_.bytes_done += bytes;
  if (!options_.on_progress || before / kStepBytes == progress_.bytes_done / kStepBytes) return {};
  if (options_.on_progress(progress_)) return {};
  return fail(Errc::kUnavailable, "cancelled; the next run goes on");
}

Result<void> Collection::list() {
  return store_.origin().list([this](const StoredObject& object) -> Result<void> {
    progress_.bytes_total += object.stored_bytes;
    if (object.buried_at) {
      buried_.push_back(
          {.name = object.name, .at = *object.buried_at, .bytes = object.stored_bytes});
    }
    return {};
  });
}

Result<bool> Collection::is_foreign_root(const VersionId& version) {
  const auto bytes = TRY(store_.origin().get(version));
  ByteReader reader(bytes);
  const ObjectHeader header = TRY(read_header(reader));
  return header.key_id != store_.keys().id;
}

Result<void> Collection::mark_version(const VersionId& version) {
  if (TRY(is_foreign_root(version))) return {};
  live_.insert(version);
  Manifest manifest = TRY(Manifest::open(store_.origin(), store_.keys(), version));
  const auto enter = [this](const ObjectName& node) { return live_.insert(node).second; };
  const auto visit = [this](std::uint64_t, const PageRef& ref) -> Result<void> {
    live_.insert(ref.place.extent);
    return {};
  };
  return manifest.walk(enter, visit);
}

Result<void> Collection::mark() {
  for (const VersionId& version : TRY(store_.catalog().roots(now_))) {
    ++report_.roots;
    auto marked = mark_version(version);
    if (marked) continue;
    const Errc code =
        marked.error().code() == Errc::kNotFound ? Errc::kCorrupt : marked.error().code();
    return fail(code, "version " + to_hex(version) + ": " + marked.error().message() +
                          "; nothing was removed: `samepage image verify` says more");
  }
  return {};
}

/// Whoever needs an object again keeps it, but a commit that ended while it was being buried left
/// its pages out of the page index.
Result<void> Collection::dig_up(const ObjectName& name) {
  TRY(store_.origin().keep(name));
  const auto bytes = store_.origin().get(name);
  if (!bytes) return {};  // Damage is the verifier's.
  const auto digests = decode_extent_digests(*bytes, store_.keys());
  if (digests) store_.pages().add(name, *digests);
  return {};
}

Result<void> Collection::bury(const std::vector<ObjectName>& names, std::chrono::sys_seconds at) {
  // Not found for new pages any more, before they are counted as gone.
  TRY(store_.pages().forget(names));
  return store_.origin().bury(names, at);
}

/// Lists again, now that it is known what is in use: what came since is left for the next run.
Result<void> Collection::sort_out() {
  std::vector<ObjectName> leading;
  std::vector<ObjectName> extents;
  const auto look = [&](const StoredObject& object) -> Result<void> {
    TRY(tell_progress(object.stored_bytes));
    if (live_.contains(object.name)) {
      ++report_.live_objects;
      report_.live_bytes += object.stored_bytes;
      return {};
    }
    if (object.buried_at) return {};
    const auto bytes = store_.origin().get(object.name);
    if (!bytes) return {};  // Damaged: whose it is cannot be told.
    ByteReader reader(*bytes);
    const auto header = read_header(reader);
    if (!header || header->key_id != store_.keys().id) {
      ++report_.foreign_objects;
      return {};
    }
    ++report_.buried_objects;
    report_.buried_bytes += object.stored_bytes;
    (header->kind == ObjectKind::kExtent ? extents : leading).push_back(object.name);
    return {};
  };
  TRY(store_.origin().list(look));
  if (options_.dry_run) return {};
  TRY(bury(leading, now_ - std::chrono::seconds(1)));
  return bury(extents, now_);
}

Result<GarbageReport> Collection::run() {
  TRY(list());
  TRY(mark());
  std::vector<ObjectName> old;
  const auto until = now_ - options_.grace;
  for (const Buried& buried : buried_) {
    if (live_.contains(buried.name)) {
      ++report_.dug_up_objects;
      if (!options_.dry_run) TRY(dig_up(buried.name));
    } else if (buried.at <= until) {
      old.push_back(buried.name);
      ++report_.swept_objects;
      report_.swept_bytes += buried.bytes;
    } else {
      ++report_.waiting_objects;
      report_.waiting_bytes += buried.bytes;
    }
  }
  TRY(store_.commit());
  TRY(sort_out());
  if (options_.dry_run) return report_;
  const SweepReport swept = TRY(store_.origin().sweep(old, until));
  report_.swept_objects = swept.objects;
  report_.swept_bytes = swept.bytes;
  return report_;
}

}  // namespace

Result<GarbageReport> collect_garbage(ImageStore& store, const GarbageOptions& options,
                                      const Clock& clock) {
  if (options.grace < kGraceMin) {
    return fail(Errc::kInvalid, "a grace time below 15 minutes could end before a commit does");
  }
  auto report = Collection(store, options, clock).run();
  if (!report) {
    if (auto discarded = store.discard(); !discarded) return tl::unexpected(report.error());
  }
  return report;
}

}  // namespace samepage::imagestore
