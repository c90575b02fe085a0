#include "imagestore/dir_origin.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>

#include "core/check.h"
#include "core/database.h"
#include "core/fd.h"
#include "imagestore/pack_file.h"

namespace samepage::imagestore {
namespace {

constexpr std::array<std::string_view, 1> kSchema{
    "CREATE TABLE packs (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);"
    "CREATE TABLE objects (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE,"
    "  pack INTEGER NOT NULL, offset INTEGER NOT NULL, bytes INTEGER NOT NULL);"};

constexpr std::string_view kPackPrefix = "pack-";
constexpr std::size_t kPacksOpenMax = 128;  // Descriptors for reading.

struct ObjectPlace {
  std::uint32_t pack = 0;
  RecordPlace record;
};

std::filesystem::path pack_path(const std::filesystem::path& folder, std::uint32_t number) {
  std::string digits = std::to_string(number);
  digits.insert(0, digits.size() < 6 ? 6 - digits.size() : 0, '0');
  return folder / (std::string(kPackPrefix) + digits);
}

std::optional<std::uint32_t> pack_number(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kPackPrefix)) return std::nullopt;
  std::uint32_t number = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPackPrefix.size(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

Result<std::vector<std::uint32_t>> packs_in(const std::filesystem::path& folder) {
  std::vector<std::uint32_t> numbers;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (const auto number = pack_number(entry->path())) numbers.push_back(*number);
  }
  if (error) return fail(Errc::kIo, folder.string() + ": " + error.message());
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Result<Fd> lock_folder(const std::filesystem::path& folder) {
  const std::string path = folder / "lock";
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return fail(Errc::kIo, path + ": " + std::generic_category().message(errno));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(Errc::kUnavailable,
                folder.string() + ": another process is writing to this store; try again later");
  }
  return fd;
}

Result<void> make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(Errc::kIo, "create " + folder.string() + ": " + error.message());
  return {};
}

}  // namespace

/// Members in order of dependence: the database outlives its statements and its transaction.
class DirOrigin::Impl {
 public:
  Impl(Options options, Fd lock, Database database)
      : options_(std::move(options)), lock_(std::move(lock)), database_(std::move(database)) {}

  Result<void> prepare();
  Result<void> repair();

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes);
  Result<void> sync();
  Result<void> discard();
  Result<std::optional<ObjectPlace>> find(const ObjectName& name);
  Result<std::vector<std::byte>> get(const ObjectName& name);
  Result<void> list(const std::function<Result<void>(const ObjectName&, std::uint64_t)>& visit);

  Repairs repairs_;

 private:
  /// A pack that this writer appends to, and how much of it the index has named durably.
  struct Written {
    PackFile pack;
    std::uint64_t bytes_named = 0;
    bool created = false;  ///< Since the last sync().
  };

  Result<void> begin();
  Result<PackFile*> pack_for(std::uint64_t record_bytes);
  Result<const PackFile*> pack_to_read(std::uint32_t number);
  Result<void> repair_pack(std::uint32_t number, std::optional<std::uint64_t> bytes_named);
  Result<void> adopt_tail(PackFile& pack, std::uint64_t bytes_named);
  Result<void> name_object(const ObjectName& name, std::uint32_t pack, const RecordPlace& place);

  Options options_;
  Fd lock_;
  Database database_;
  std::optional<Statement> find_;
  std::optional<Statement> insert_;
  std::optional<Statement> name_pack_;
  std::optional<Transaction> transaction_;
  std::map<std::uint32_t, Written> written_;  ///< The last one takes the next record.
  std::map<std::uint32_t, PackFile> readable_;
  std::uint32_t next_pack_ = 1;
};

Result<void> DirOrigin::Impl::prepare() {
  TRY(database_.migrate(kSchema));
  find_ = TRY(database_.prepare("SELECT pack, offset, bytes FROM objects WHERE name = ?"));
  insert_ =
      TRY(database_.prepare("INSERT INTO objects (name, pack, offset, bytes) VALUES (?, ?, ?, ?)"));
  name_pack_ = TRY(database_.prepare("INSERT OR REPLACE INTO packs (number, bytes) VALUES (?, ?)"));
  return {};
}

Result<void> DirOrigin::Impl::repair() {
  std::map<std::uint32_t, std::uint64_t> named;
  auto rows = TRY(database_.prepare("SELECT number, bytes FROM packs"));
  while (TRY(rows.step())) {
    named[static_cast<std::uint32_t>(rows.integer(0))] =
        static_cast<std::uint64_t>(rows.integer(1));
  }
  for (const std::uint32_t number : TRY(packs_in(options_.folder))) {
    next_pack_ = number + 1;
    const auto known = named.find(number);
    TRY(repair_pack(number, known == named.end() ? std::nullopt : std::optional(known->second)));
  }
  return sync();
}

Result<void> DirOrigin::Impl::repair_pack(std::uint32_t number,
                                          std::optional<std::uint64_t> bytes_named) {
  const auto path = pack_path(options_.folder, number);
  std::error_code error;
  if (std::filesystem::file_size(path, error) < PackFile::kHeaderBytes && !error && !bytes_named) {
    std::filesystem::remove(path, error);  // Its maker was killed before anything was in it.
    return {};
  }
  auto opened = PackFile::open(path, number, true);
  if (!opened) {
    // Damage: nothing is appended to it or taken from it; verifying finds what is missed.
    if (opened.error().code() == Errc::kCorrupt) return {};
    return tl::unexpected(std::move(opened).error());
  }
  PackFile pack = *std::move(opened);
  const std::uint64_t named = bytes_named.value_or(0);
  if (pack.bytes() < named) return {};  // Lost on the disk; never append behind the gap.
  if (pack.bytes() > named) TRY(adopt_tail(pack, named));
  // Named or not, what was adopted is kept: a repair that fails must not cut it off.
  const std::uint64_t kept = pack.bytes();
  written_.clear();
  written_.emplace(number, Written{.pack = std::move(pack), .bytes_named = kept});
  return sync();
}

Result<void> DirOrigin::Impl::adopt_tail(PackFile& pack, std::uint64_t bytes_named) {
  TRY(begin());
  const auto adopt = [&](const ObjectName& name, const RecordPlace& place) -> Result<void> {
    if (TRY(find(name))) return {};
    ++repairs_.objects_adopted;
    return name_object(name, pack.number(), place);
  };
  const std::uint64_t end = TRY(pack.scan(bytes_named, adopt));
  if (pack.bytes() == end) return {};
  repairs_.bytes_cut += pack.bytes() - end;
  return pack.truncate(end);
}

Result<void> DirOrigin::Impl::begin() {
  if (!transaction_) transaction_.emplace(TRY(database_.begin()));
  return {};
}

Result<void> DirOrigin::Impl::name_object(const ObjectName& name, std::uint32_t pack,
                                          const RecordPlace& place) {
  TRY(begin());
  TRY(insert_->bind({std::span<const std::byte>(name.bytes), std::int64_t{pack},
                     static_cast<std::int64_t>(place.offset),
                     static_cast<std::int64_t>(place.bytes)}));
  return insert_->run();
}

Result<PackFile*> DirOrigin::Impl::pack_for(std::uint64_t record_bytes) {
  if (!written_.empty()) {
    PackFile& last = written_.rbegin()->second.pack;
    if (last.bytes() + record_bytes <= options_.pack_bytes_max) return &last;
  }
  const std::uint32_t number = next_pack_;
  PackFile pack = TRY(PackFile::create(pack_path(options_.folder, number), number));
  ++next_pack_;
  const auto made =
      written_.emplace(number, Written{.pack = std::move(pack), .bytes_named = 0, .created = true});
  return &made.first->second.pack;
}

Result<void> DirOrigin::Impl::put(const ObjectName& name, std::span<const std::byte> bytes) {
  if (options_.access != Access::kWrite) return fail(Errc::kInvalid, "opened for reading only");
  if (bytes.size() > kObjectBytesMax) return fail(Errc::kInvalid, "an object beyond the limit");
  if (TRY(find(name))) return {};
  PackFile* pack = TRY(pack_for(PackFile::record_bytes(bytes.size())));
  const RecordPlace place = TRY(pack->append(name, bytes));
  return name_object(name, pack->number(), place);
}

Result<void> DirOrigin::Impl::sync() {
  if (!transaction_) return {};
  for (auto& [number, written] : written_) {
    TRY(written.pack.flush());
    TRY(name_pack_->bind({std::int64_t{number}, static_cast<std::int64_t>(written.pack.bytes())}));
    TRY(name_pack_->run());
  }
  TRY(transaction_->commit());
  transaction_.reset();
  while (written_.size() > 1) written_.erase(written_.begin());
  for (auto& [number, written] : written_) {
    written.bytes_named = written.pack.bytes();
    written.created = false;
  }
  return {};
}

Result<void> DirOrigin::Impl::discard() {
  transaction_.reset();
  readable_.clear();
  Result<void> done;
  for (auto at = written_.begin(); at != written_.end();) {
    Written& written = at->second;
    if (written.created) {
      std::error_code ignored;  // What stays is an unnamed pack, which the next writer adopts.
      std::filesystem::remove(pack_path(options_.folder, at->first), ignored);
      at = written_.erase(at);
      continue;
    }
    if (written.pack.bytes() > written.bytes_named) {
      if (auto cut = written.pack.truncate(written.bytes_named); !cut) done = std::move(cut);
    }
    ++at;
  }
  return done;
}

Result<std::optional<ObjectPlace>> DirOrigin::Impl::find(const ObjectName& name) {
  TRY(find_->bind({std::span<const std::byte>(name.bytes)}));
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

Result<const PackFile*> DirOrigin::Impl::pack_to_read(std::uint32_t number) {
  const auto found = readable_.find(number);
  if (found != readable_.end()) return &found->second;
  if (readable_.size() >= kPacksOpenMax) readable_.erase(readable_.begin());
  PackFile pack = TRY(PackFile::open(pack_path(options_.folder, number), number, false));
  return &readable_.emplace(number, std::move(pack)).first->second;
}

Result<std::vector<std::byte>> DirOrigin::Impl::get(const ObjectName& name) {
  const auto place = TRY(find(name));
  if (!place) return fail(Errc::kNotFound, "object " + to_hex(name) + " is not in the store");
  const std::string where =
      "pack " + std::to_string(place->pack) + " at " + std::to_string(place->record.offset);
  const auto pack = pack_to_read(place->pack);
  if (!pack) {
    // The index promised it: a missing pack is damage.
    const Errc code = pack.error().code() == Errc::kNotFound ? Errc::kCorrupt : pack.error().code();
    return fail(code, where + ": " + pack.error().message());
  }
  auto bytes = (*pack)->read(place->record, name);
  if (!bytes) return tl::unexpected(std::move(bytes).error().within(where));
  return bytes;
}

Result<void> DirOrigin::Impl::list(
    const std::function<Result<void>(const ObjectName&, std::uint64_t)>& visit) {
  auto rows = TRY(database_.prepare("SELECT name, bytes FROM objects ORDER BY id"));
  while (TRY(rows.step())) {
    const auto bytes = rows.blob(0);
    ObjectName name;
    if (bytes.size() != name.bytes.size()) return fail(Errc::kCorrupt, "a name in the index");
    std::copy(bytes.begin(), bytes.end(), name.bytes.begin());
    TRY(visit(name, static_cast<std::uint64_t>(rows.integer(1))));
  }
  return {};
}

Result<std::unique_ptr<DirOrigin>> DirOrigin::open(const Options& options) {
  CHECK(options.pack_bytes_max > PackFile::record_bytes(kObjectBytesMax));
  const bool writable = options.access == Access::kWrite;
  const auto index = options.folder / "index.db";
  Fd lock;
  if (writable) {
    TRY(make_folder(options.folder));
    lock = TRY(lock_folder(options.folder));
  } else if (std::error_code ignored; !std::filesystem::exists(index, ignored)) {
    return fail(Errc::kNotFound, options.folder.string() + ": no image store is here");
  }
  Database database = TRY(Database::open({.path = index.string()}));
  auto impl = std::make_unique<Impl>(options, std::move(lock), std::move(database));
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

Result<void> DirOrigin::list(
    const std::function<Result<void>(const ObjectName&, std::uint64_t)>& visit) {
  return impl_->list(visit);
}

std::string DirOrigin::place(const ObjectName& name) {
  const auto place = impl_->find(name);
  if (!place || !*place) return "nowhere";
  return "pack " + std::to_string((*place)->pack) + " at " +
         std::to_string((*place)->record.offset);
}

const DirOrigin::Repairs& DirOrigin::repairs() const {
  return impl_->repairs_;
}

}  // namespace samepage::imagestore
