#include "imagestore/pack_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

using std::chrono_literals::operator""us;

constexpr std::string_view kPackPrefix = "pack-";
constexpr std::size_t kPacksOpenMax = 128;  // Descriptors for reading.
constexpr auto kLockStep = 200us;

std::optional<std::uint32_t> pack_number(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kPackPrefix)) return std::nullopt;
  std::uint32_t number = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPackPrefix.size(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

/// The folder's lock, held for one append or removal.
class Turn {
 public:
  static Result<Turn> take(SharedFile& file, int fd, std::chrono::milliseconds time_max) {
    const auto deadline = std::chrono::steady_clock::now() + time_max;
    auto among_threads = TRY(file.take_turn(time_max));
    while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) {
        return fail(Errc::kIo, "lock the packs: " + std::generic_category().message(errno));
      }
      if (std::chrono::steady_clock::now() >= deadline) {
        return fail(Errc::kUnavailable,
                    "another process holds the lock on the packs; was it stopped?");
      }
      std::this_thread::sleep_for(kLockStep);
    }
    return Turn(std::move(among_threads), fd);
  }

  Turn(Turn&& other) noexcept
      : among_threads_(std::move(other.among_threads_)), fd_(std::exchange(other.fd_, -1)) {}
  Turn& operator=(Turn&&) = delete;
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (fd_ >= 0) ::flock(fd_, LOCK_UN);
  }

 private:
  Turn(std::unique_lock<std::timed_mutex> among_threads, int fd)
      : among_threads_(std::move(among_threads)), fd_(fd) {}

  std::unique_lock<std::timed_mutex> among_threads_;
  int fd_;
};

}  // namespace

Result<PackFolder> PackFolder::open(const Options& options) {
  CHECK(options.pack_bytes_max > PackFile::record_bytes(kObjectBytesMax));
  Fd lock;
  if (options.writable) {
    const std::string path = options.folder / "lock";
    lock = Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock) return fail(Errc::kIo, path + ": " + std::generic_category().message(errno));
  }
  return PackFolder(options, std::move(lock));
}

std::filesystem::path PackFolder::path_of(std::uint32_t number) const {
  std::string digits = std::to_string(number);
  digits.insert(0, digits.size() < 6 ? 6 - digits.size() : 0, '0');
  return options_.folder / (std::string(kPackPrefix) + digits);
}

Result<std::vector<std::uint32_t>> PackFolder::numbers() const {
  std::vector<std::uint32_t> numbers;
  std::error_code error;
  std::filesystem::directory_iterator entry(options_.folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (const auto number = pack_number(entry->path())) numbers.push_back(*number);
  }
  if (error) return fail(Errc::kIo, options_.folder.string() + ": " + error.message());
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

/// The pack, held shared, when the record fits into it and nobody has seized it.
Result<PackFolder::Appended*> PackFolder::usable(std::uint32_t number, std::uint64_t record_bytes) {
  auto held = appended_.find(number);
  if (held == appended_.end()) {
    auto opened = PackFile::open(path_of(number), number, true);
    if (!opened && opened.error().code() == Errc::kIo) return tl::unexpected(opened.error());
    if (!opened || !opened->try_lock(PackFile::Lock::kShared)) return nullptr;
    held = appended_.emplace(number, Appended{.pack = *std::move(opened), .ranges = {}}).first;
  }
  PackFile& pack = held->second.pack;
  const bool there = TRY(pack.refresh());
  if (there && pack.bytes() + record_bytes <= options_.pack_bytes_max) return &held->second;
  if (held->second.ranges.empty()) appended_.erase(held);
  return nullptr;
}

Result<PackFolder::Appended*> PackFolder::pack_for(std::uint64_t record_bytes) {
  if (append_to_) {
    if (Appended* pack = TRY(usable(*append_to_, record_bytes))) return pack;
  }
  const auto packs = TRY(numbers());
  const std::uint32_t newest = packs.empty() ? 0 : packs.back();
  // One that another writer made when the same pack was full for it.
  if (append_to_ && newest > *append_to_) {
    if (Appended* pack = TRY(usable(newest, record_bytes))) {
      append_to_ = newest;
      return pack;
    }
  }
  PackFile made = TRY(PackFile::create(path_of(newest + 1), newest + 1));
  CHECK(made.try_lock(PackFile::Lock::kShared));
  append_to_ = newest + 1;
  const auto added = appended_.emplace(newest + 1, Appended{.pack = std::move(made), .ranges = {}});
  return &added.first->second;
}

Result<ObjectPlace> PackFolder::append(const ObjectName& name, std::span<const std::byte> bytes) {
  const Turn turn = TRY(Turn::take(*shared_, lock_.get(), options_.lock_time_max));
  Appended* to = TRY(pack_for(PackFile::record_bytes(bytes.size())));
  const RecordPlace place = TRY(to->pack.append(name, bytes));
  if (!to->ranges.empty() && to->ranges.back().second == place.offset) {
    to->ranges.back().second = place.offset + place.bytes;
  } else {
    to->ranges.emplace_back(place.offset, place.offset + place.bytes);
  }
  return ObjectPlace{.pack = to->pack.number(), .record = place};
}

Result<std::vector<std::pair<std::uint32_t, std::uint64_t>>> PackFolder::flush() {
  std::vector<std::pair<std::uint32_t, std::uint64_t>> ends;
  for (auto& [number, appended] : appended_) {
    if (appended.ranges.empty()) continue;
    const auto file = SharedFile::of(path_of(number));
    TRY(file->flush([&pack = appended.pack] { return pack.flush(); }));
    ends.emplace_back(number, appended.ranges.back().second);
  }
  return ends;
}

void PackFolder::release() {
  appended_.clear();
}

Result<void> PackFolder::discard() {
  readable_.clear();
  if (appended_.empty()) return {};
  const Turn turn = TRY(Turn::take(*shared_, lock_.get(), options_.lock_time_max));
  for (auto& [number, appended] : appended_) {
    auto& ranges = appended.ranges;
    TRY(appended.pack.refresh());
    while (!ranges.empty() && ranges.back().second == appended.pack.bytes()) {
      TRY(appended.pack.truncate(ranges.back().first));
      ranges.pop_back();
    }
  }
  appended_.clear();
  return {};
}

Result<const PackFile*> PackFolder::pack_to_read(std::uint32_t number) {
  const auto found = readable_.find(number);
  if (found != readable_.end()) return &found->second;
  if (readable_.size() >= kPacksOpenMax) readable_.erase(readable_.begin());
  PackFile pack = TRY(PackFile::open(path_of(number), number, false));
  return &readable_.emplace(number, std::move(pack)).first->second;
}

Result<std::vector<std::byte>> PackFolder::read(const ObjectPlace& place, const ObjectName& name) {
  const auto pack = pack_to_read(place.pack);
  if (!pack) {
    // Whoever has a place was promised a record: a missing pack is damage.
    const Errc code = pack.error().code() == Errc::kNotFound ? Errc::kCorrupt : pack.error().code();
    return fail(code, pack.error().message());
  }
  return (*pack)->read(place.record, name);
}

Result<std::optional<PackFile>> PackFolder::seize(std::uint32_t number) {
  PackFile pack = TRY(PackFile::open(path_of(number), number, true));
  if (!pack.try_lock(PackFile::Lock::kExclusive)) return std::nullopt;
  if (!TRY(pack.refresh())) return std::nullopt;
  return pack;
}

Result<void> PackFolder::remove(const PackFile& seized) {
  if (::unlink(path_of(seized.number()).c_str()) == 0) return {};
  return fail(Errc::kIo, "remove pack " + std::to_string(seized.number()) + ": " +
                             std::generic_category().message(errno));
}

Result<void> PackFolder::remove_stillborn(std::uint32_t number) {
  const Turn turn = TRY(Turn::take(*shared_, lock_.get(), options_.lock_time_max));
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path_of(number), error);
  if (!error && bytes < PackFile::kHeaderBytes) std::filesystem::remove(path_of(number), error);
  return {};
}

}  // namespace samepage::imagestore
