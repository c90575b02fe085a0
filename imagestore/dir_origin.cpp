#include "imagestore/dir_origin.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/database.h"
#include "imagestore/object_format.h"
#include "imagestore/pack_folder.h"
#include "imagestore/shared_file.h"

namespace samepage::imagestore {
namespace {

constexpr std::array<std::string_view, 2> kSchema{
    "CREATE TABLE packs (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);"
    "CREATE TABLE objects (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE,"
    "  pack INTEGER NOT NULL, offset INTEGER NOT NULL, bytes INTEGER NOT NULL);",
    "ALTER TABLE objects ADD COLUMN buried_at INTEGER;"
    "CREATE INDEX objects_by_place ON objects (pack, offset);"};

constexpr std::string_view kInsert =
    "INSERT OR IGNORE INTO objects (name, pack, offset, bytes) VALUES (?, ?, ?, ?)";
constexpr std::string_view kNamePack =
    "INSERT INTO packs (number, bytes) VALUES (?, ?)"
    " ON CONFLICT (number) DO UPDATE SET bytes = max(bytes, excluded.bytes)";

// Changes of one transaction at most, so that other writers wait for moments only.
constexpr std::size_t kBatchMax = 4096;

std::span<const std::byte> octets(const ObjectName& name) {
  return name.bytes;
}

Result<ObjectName> name_in(const Statement& row, int column) {
  const auto bytes = row.blob(column);
  ObjectName name;
  if (bytes.size() != name.bytes.size()) return fail(Errc::kCorrupt, "a name in the index");
  std::copy(bytes.begin(), bytes.end(), name.bytes.begin());
  return name;
}

std::string describe(const ObjectPlace& place) {
  return "pack " + std::to_string(place.pack) + " at " + std::to_string(place.record.offset);
}

std::int64_t seconds(std::chrono::sys_seconds time) {
  return time.time_since_epoch().count();
}

Result<void> make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(Errc::kIo, "create " + folder.string() + ": " + error.message());
  return {};
}

}  // namespace

/// Members in order of dependence: the database outlives its statements.
class DirOrigin::Impl {
 public:
  Impl(Options options, PackFolder packs, Database database)
      : options_(std::move(options)),
        packs_(std::move(packs)),
        index_(SharedFile::of(options_.folder / "index.db")),
        database_(std::move(database)) {}

  Result<void> prepare();
  Result<void> repair();

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes);
  Result<void> keep(const ObjectName& name);
  Result<void> sync();
  Result<void> discard();
  Result<std::optional<ObjectPlace>> find(const ObjectName& name);
  Result<std::vector<std::byte>> get(const ObjectName& name);
  Result<void> list(const Visit& visit);
  Result<void> bury(std::span<const ObjectName> names, std::chrono::sys_seconds at);
  Result<SweepReport> sweep(std::span<const ObjectName> names, std::chrono::sys_seconds until);

  Repairs repairs_;

 private:
  using Placed = std::pair<ObjectName, ObjectPlace>;

  Result<std::optional<ObjectPlace>> find_named(const ObjectName& name);
  Result<void> write_names(std::span<const Placed> placed,
                           std::span<const std::pair<std::uint32_t, std::uint64_t>> ends);
  Result<void> keep_all();
  Result<bool> repair_pack(std::uint32_t number, std::optional<std::uint64_t> bytes_named);
  Result<void> adopt_tail(PackFile& pack, std::uint64_t bytes_named);
  Result<std::vector<ObjectName>> by_burial(std::span<const ObjectName> names);
  Result<SweepReport> forget(std::span<const ObjectName> names, std::chrono::sys_seconds until);
  Result<void> reclaim();
  Result<void> reclaim_pack(std::uint32_t number, bool newest);

  Options options_;
  PackFolder packs_;
  const std::shared_ptr<SharedFile> index_;
  Database database_;
  std::optional<Statement> find_;
  std::optional<Statement> insert_;
  std::optional<Statement> name_pack_;
  std::optional<Statement> dig_up_;
  std::unordered_map<ObjectName, ObjectPlace> unsynced_;
  std::unordered_set<ObjectName> kept_;
};

Result<void> DirOrigin::Impl::prepare() {
  TRY(database_.migrate(kSchema));
  find_ = TRY(database_.prepare("SELECT pack, offset, bytes FROM objects WHERE name = ?"));
  insert_ = TRY(database_.prepare(kInsert));
  name_pack_ = TRY(database_.prepare(kNamePack));
  dig_up_ = TRY(database_.prepare("UPDATE objects SET buried_at = NULL WHERE name = ?"));
  return {};
}

Result<void> DirOrigin::Impl::repair() {
  std::map<std::uint32_t, std::uint64_t> named;
  {
    auto rows = TRY(database_.prepare("SELECT number, bytes FROM packs"));
    while (TRY(rows.step())) {
      named[static_cast<std::uint32_t>(rows.integer(0))] =
          static_cast<std::uint64_t>(rows.integer(1));
    }
  }
  for (const std::uint32_t number : TRY(packs_.numbers())) {
    const auto known = named.find(number);
    const auto bytes_named =
        known == named.end() ? std::nullopt : std::optional<std::uint64_t>(known->second);
    if (TRY(repair_pack(number, bytes_named))) packs_.append_to(number);
  }
  return {};
}

/// Whether the pack is sound and may be appended to.
Result<bool> DirOrigin::Impl::repair_pack(std::uint32_t number,
                                          std::optional<std::uint64_t> bytes_named) {
  if (!bytes_named) TRY(packs_.remove_stillborn(number));
  auto seized = packs_.seize(number);
  if (!seized) {
    // Damage: nothing is appended to it or taken from it; verifying finds what is missed.
    const Errc code = seized.error().code();
    if (code == Errc::kCorrupt || code == Errc::kNotFound) return false;
    return tl::unexpected(std::move(seized).error());
  }
  if (!*seized) return true;  // Another writer appends to it and mends its own.
  PackFile& pack = **seized;
  const std::uint64_t named = bytes_named.value_or(0);
  if (pack.bytes() < named) return false;  // Lost on the disk; never append behind the gap.
  if (pack.bytes() > named) TRY(adopt_tail(pack, named));
  return true;
}

Result<void> DirOrigin::Impl::adopt_tail(PackFile& pack, std::uint64_t bytes_named) {
  std::vector<Placed> adopted;
  const auto adopt = [&](const ObjectName& name, const RecordPlace& place) -> Result<void> {
    if (TRY(find_named(name))) return {};
    // What it leads to may be lost: whoever has the same to store must store his own.
    if (leads_to_others(TRY(pack.read(place, name)))) return {};
    adopted.emplace_back(name, ObjectPlace{.pack = pack.number(), .record = place});
    return {};
  };
  const std::uint64_t end = TRY(pack.scan(bytes_named, adopt));
  if (pack.bytes() > end) {
    repairs_.bytes_cut += pack.bytes() - end;
    TRY(pack.truncate(end));
  }
  TRY(pack.flush());
  repairs_.objects_adopted += adopted.size();
  const std::array<std::pair<std::uint32_t, std::uint64_t>, 1> ends{{{pack.number(), end}}};
  TRY(write_names(adopted, ends));
  return database_.flush();
}

Result<void> DirOrigin::Impl::write_names(
    std::span<const Placed> placed, std::span<const std::pair<std::uint32_t, std::uint64_t>> ends) {
  const auto turn = TRY(index_->take_turn(options_.lock_time_max));
  Transaction transaction = TRY(database_.begin());
  for (const auto& [name, place] : placed) {
    TRY(insert_->bind({octets(name), std::int64_t{place.pack},
                       static_cast<std::int64_t>(place.record.offset),
                       static_cast<std::int64_t>(place.record.bytes)}));
    TRY(insert_->run());
    // Another writer may have stored the same, and a sweeper buried it since.
    if (database_.rows_changed() == 0) kept_.insert(name);
  }
  for (const auto& [number, bytes] : ends) {
    TRY(name_pack_->bind({std::int64_t{number}, static_cast<std::int64_t>(bytes)}));
    TRY(name_pack_->run());
  }
  TRY(keep_all());
  return transaction.commit();
}

Result<void> DirOrigin::Impl::keep_all() {
  for (const ObjectName& name : kept_) {
    TRY(dig_up_->bind({octets(name)}));
    TRY(dig_up_->run());
    if (database_.rows_changed() > 0) continue;
    return fail(Errc::kUnavailable, "object " + to_hex(name) +
                                        " was removed by `samepage image gc` meanwhile; try again");
  }
  return {};
}

Result<void> DirOrigin::Impl::put(const ObjectName& name, std::span<const std::byte> bytes) {
  if (options_.access == Access::kRead) return fail(Errc::kInvalid, "opened for reading only");
  if (bytes.size() > kObjectBytesMax) return fail(Errc::kInvalid, "an object beyond the limit");
  if (unsynced_.contains(name)) return {};
  if (TRY(find_named(name))) return keep(name);
  unsynced_.emplace(name, TRY(packs_.append(name, bytes)));
  return {};
}

Result<void> DirOrigin::Impl::keep(const ObjectName& name) {
  if (options_.access == Access::kRead) return fail(Errc::kInvalid, "opened for reading only");
  if (!unsynced_.contains(name)) kept_.insert(name);
  return {};
}

Result<void> DirOrigin::Impl::sync() {
  if (unsynced_.empty() && kept_.empty()) return {};
  const auto ends = TRY(packs_.flush());
  // In the order of storing, so that what was stored together is found together.
  std::vector<Placed> placed(unsynced_.begin(), unsynced_.end());
  std::sort(placed.begin(), placed.end(), [](const Placed& one, const Placed& other) {
    return std::pair(one.second.pack, one.second.record.offset) <
           std::pair(other.second.pack, other.second.record.offset);
  });
  TRY(write_names(placed, ends));
  TRY(index_->flush([this] { return database_.flush(); }));
  packs_.release();
  unsynced_.clear();
  kept_.clear();
  return {};
}

Result<void> DirOrigin::Impl::discard() {
  unsynced_.clear();
  kept_.clear();
  return packs_.discard();
}

Result<std::optional<ObjectPlace>> DirOrigin::Impl::find(const ObjectName& name) {
  const auto found = unsynced_.find(name);
  if (found != unsynced_.end()) return found->second;
  return find_named(name);
}

Result<std::optional<ObjectPlace>> DirOrigin::Impl::find_named(const ObjectName& name) {
  TRY(find_->bind({octets(name)}));
  if (!TRY(find_->step())) return std::nullopt;
  const ObjectPlace place{
      .pack = static_cast<std::uint32_t>(find_->integer(0)),
      .record = {.offset = static_cast<std::uint64_t>(find_->integer(1)),
                 .bytes = static_cast<std::uint64_t>(find_->integer(2))},
  };
  // A statement in mid-query would hold on to its snapshot of the index.
  TRY(find_->step());
  return place;
}

Result<std::vector<std::byte>> DirOrigin::Impl::get(const ObjectName& name) {
  const auto place = TRY(find(name));
  if (!place) return fail(Errc::kNotFound, "object " + to_hex(name) + " is not in the store");
  auto bytes = packs_.read(*place, name);
  if (bytes) return bytes;
  if (!TRY(find(name))) return fail(Errc::kNotFound, "object " + to_hex(name) + " was removed");
  return tl::unexpected(std::move(bytes).error().within(describe(*place)));
}

Result<void> DirOrigin::Impl::list(const Visit& visit) {
  auto rows = TRY(database_.prepare("SELECT name, bytes, buried_at FROM objects ORDER BY id"));
  while (TRY(rows.step())) {
    StoredObject object{.name = TRY(name_in(rows, 0)),
                        .stored_bytes = static_cast<std::uint64_t>(rows.integer(1))};
    if (!rows.is_null(2)) {
      object.buried_at = std::chrono::sys_seconds(std::chrono::seconds(rows.integer(2)));
    }
    TRY(visit(object));
  }
  return {};
}

Result<void> DirOrigin::Impl::bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) {
  auto bury = TRY(
      database_.prepare("UPDATE objects SET buried_at = ? WHERE name = ? AND buried_at IS NULL"));
  while (!names.empty()) {
    const auto batch = names.first(std::min(names.size(), kBatchMax));
    names = names.subspan(batch.size());
    Transaction transaction = TRY(database_.begin());
    for (const ObjectName& name : batch) {
      TRY(bury.bind({seconds(at), octets(name)}));
      TRY(bury.run());
    }
    TRY(transaction.commit());
  }
  return database_.flush();
}

/// Those that are buried, earliest first.
Result<std::vector<ObjectName>> DirOrigin::Impl::by_burial(std::span<const ObjectName> names) {
  auto find = TRY(database_.prepare("SELECT buried_at FROM objects WHERE name = ?"));
  std::vector<std::pair<std::int64_t, ObjectName>> buried;
  for (const ObjectName& name : names) {
    TRY(find.bind({octets(name)}));
    while (TRY(find.step())) {
      if (!find.is_null(0)) buried.emplace_back(find.integer(0), name);
    }
  }
  std::ranges::stable_sort(buried, {}, &std::pair<std::int64_t, ObjectName>::first);
  std::vector<ObjectName> ordered;
  for (const auto& [at, name] : buried) ordered.push_back(name);
  return ordered;
}

Result<SweepReport> DirOrigin::Impl::forget(std::span<const ObjectName> names,
                                            std::chrono::sys_seconds until) {
  auto remove = TRY(
      database_.prepare("DELETE FROM objects WHERE name = ? AND buried_at <= ? RETURNING bytes"));
  SweepReport report;
  Transaction transaction = TRY(database_.begin());
  for (const ObjectName& name : names) {
    TRY(remove.bind({octets(name), seconds(until)}));
    while (TRY(remove.step())) {
      ++report.objects;
      report.bytes += static_cast<std::uint64_t>(remove.integer(0));
    }
  }
  TRY(transaction.commit());
  return report;
}

Result<SweepReport> DirOrigin::Impl::sweep(std::span<const ObjectName> names,
                                           std::chrono::sys_seconds until) {
  if (options_.access == Access::kRead) return fail(Errc::kInvalid, "opened for reading only");
  SweepReport report;
  const std::vector<ObjectName> ordered = TRY(by_burial(names));
  for (std::span<const ObjectName> left = ordered; !left.empty();) {
    const auto batch = left.first(std::min(left.size(), kBatchMax));
    left = left.subspan(batch.size());
    const SweepReport swept = TRY(forget(batch, until));
    report.objects += swept.objects;
    report.bytes += swept.bytes;
  }
  // What the index does not name, durably, may go.
  TRY(database_.flush());
  TRY(reclaim());
  return report;
}

Result<void> DirOrigin::Impl::reclaim() {
  const auto numbers = TRY(packs_.numbers());
  for (const std::uint32_t number : numbers) TRY(reclaim_pack(number, number == numbers.back()));
  return {};
}

/// Frees what lies between the records that the index names. A pack that somebody appends to waits
/// for the next time.
Result<void> DirOrigin::Impl::reclaim_pack(std::uint32_t number, bool newest) {
  auto seized = packs_.seize(number);
  if (!seized || !*seized) return {};  // Damage is the verifier's.
  PackFile& pack = **seized;
  std::uint64_t end = PackFile::kHeaderBytes;
  auto rows =
      TRY(database_.prepare("SELECT offset, bytes FROM objects WHERE pack = ? ORDER BY offset"));
  TRY(rows.bind({std::int64_t{number}}));
  bool empty = true;
  while (TRY(rows.step())) {
    empty = false;
    const auto offset = static_cast<std::uint64_t>(rows.integer(0));
    if (offset > end) TRY(pack.punch(end, offset - end));
    end = offset + static_cast<std::uint64_t>(rows.integer(1));
  }
  if (!empty || newest) {
    if (pack.bytes() > end) TRY(pack.punch(end, pack.bytes() - end));
    return {};
  }
  TRY(packs_.remove(pack));
  auto remove = TRY(database_.prepare("DELETE FROM packs WHERE number = ?"));
  TRY(remove.bind({std::int64_t{number}}));
  return remove.run();
}

Result<std::unique_ptr<DirOrigin>> DirOrigin::open(const Options& options) {
  const bool writable = options.access == Access::kWrite;
  const auto index = options.folder / "index.db";
  if (writable) {
    TRY(make_folder(options.folder));
  } else if (std::error_code ignored; !std::filesystem::exists(index, ignored)) {
    return fail(Errc::kNotFound, options.folder.string() + ": no image store is here");
  }
  PackFolder packs = TRY(PackFolder::open({.folder = options.folder,
                                           .writable = writable,
                                           .pack_bytes_max = options.pack_bytes_max,
                                           .lock_time_max = options.lock_time_max}));
  // Flushed by hand: what many writers commit at once is flushed once.
  Database database = TRY(Database::open({.path = index.string(), .synchronous_full = false}));
  auto impl = std::make_unique<Impl>(options, std::move(packs), std::move(database));
  TRY(impl->prepare());
  if (writable) TRY(impl->repair());
  return std::unique_ptr<DirOrigin>(new DirOrigin(std::move(impl)));
}

DirOrigin::DirOrigin(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

DirOrigin::~DirOrigin() {
  // What cannot be taken back here is mended by the next writer.
  if (auto discarded = impl_->discard(); !discarded) return;
}

Result<void> DirOrigin::put(const ObjectName& name, std::span<const std::byte> bytes) {
  return impl_->put(name, bytes);
}

Result<void> DirOrigin::keep(const ObjectName& name) {
  return impl_->keep(name);
}

Result<void> DirOrigin::sync() {
  return impl_->sync();
}

Result<void> DirOrigin::discard() {
  return impl_->discard();
}

Result<std::vector<std::byte>> DirOrigin::get(const ObjectName& name) {
  return impl_->get(name);
}

Result<bool> DirOrigin::contains(const ObjectName& name) {
  return TRY(impl_->find(name)).has_value();
}

Result<void> DirOrigin::list(const Visit& visit) {
  return impl_->list(visit);
}

Result<void> DirOrigin::bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) {
  return impl_->bury(names, at);
}

Result<SweepReport> DirOrigin::sweep(std::span<const ObjectName> names,
                                     std::chrono::sys_seconds until) {
  return impl_->sweep(names, until);
}

std::string DirOrigin::place(const ObjectName& name) {
  const auto place = impl_->find(name);
  if (!place || !*place) return "nowhere";
  return describe(**place);
}

const DirOrigin::Repairs& DirOrigin::repairs() const {
  return impl_->repairs_;
}

}  // namespace samepage::imagestore
