#include "imagestore/overlay.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "imagestore/overlay_bits.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kMapMark = 0x79616c7265766f01;

tl::unexpected<Error> io_error(std::string_view what) {
  return fail(Errc::kIo, std::string(what) + ": " + std::generic_category().message(errno));
}

Result<void> flush_folder(const std::filesystem::path& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return io_error("flush " + folder.string());
  return {};
}

Result<void> write_all(int fd, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return io_error("write to the overlay");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

Result<void> read_all(int fd, std::uint64_t offset, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const auto got = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read from the overlay");
    if (got == 0) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
      return {};
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

/// A file with these bytes, under its name only when it is durable.
Result<void> replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const std::filesystem::path fresh = path.string() + ".new";
  const Fd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return io_error("create " + fresh.string());
  TRY(write_all(fd.get(), 0, bytes));
  if (::fsync(fd.get()) != 0) return io_error("flush " + fresh.string());
  if (::rename(fresh.c_str(), path.c_str()) != 0) return io_error("rename " + fresh.string());
  return flush_folder(path.parent_path());
}

std::vector<StateRun> runs_of(std::span<const std::uint8_t> states) {
  std::vector<StateRun> runs;
  for (std::uint64_t page = 0; page < states.size(); ++page) {
    const PageState state = state_of(states[page]);
    if (state == PageState::kBase) continue;
    append_page(runs, page, state);
  }
  return runs;
}

void encode_runs(std::span<const StateRun> runs, const VersionId& committed,
                 std::vector<std::byte>& bytes) {
  do {
    const std::size_t count = std::min(runs.size(), kOverlayRecordRunsMax);
    const auto record = encode_overlay_record(
        {.committed = committed, .runs = {runs.begin(), runs.begin() + static_cast<long>(count)}});
    bytes.insert(bytes.end(), record.begin(), record.end());
    runs = runs.subspan(count);
  } while (!runs.empty());
}

}  // namespace

Overlay::Overlay(std::filesystem::path folder, const OverlayRoot& root, Fd lock, Fd data, Fd log,
                 PageMap map)
    : folder_(std::move(folder)),
      root_(root),
      lock_(std::move(lock)),
      data_(std::move(data)),
      map_(std::move(map)),
      groups_unlogged_(root.pages() / kGroupPages + 1),
      groups_unsent_(root.pages() / kGroupPages + 1),
      log_(std::move(log)),
      committed_(root.base) {}

Overlay::~Overlay() = default;

Result<void> Overlay::create(const std::filesystem::path& folder, const OverlayRoot& root) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(Errc::kIo, "create " + folder.string() + ": " + error.message());
  if (std::filesystem::exists(folder / "log", error)) {
    return fail(Errc::kInvalid, folder.string() + ": an overlay is there already");
  }
  // A map or data that a killed removal left belongs to another disk.
  std::filesystem::remove(folder / "map", error);
  const Fd data(::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!data) return io_error("create " + (folder / "data").string());
  const auto bytes = static_cast<off_t>(root.pages() * kPageSize);
  if (::ftruncate(data.get(), bytes) != 0 || ::fsync(data.get()) != 0) {
    return io_error("create " + (folder / "data").string());
  }
  return replace_file(folder / "log", encode_overlay_header(root));
}

Result<std::unique_ptr<Overlay>> Overlay::open(const std::filesystem::path& folder,
                                               std::uint64_t log_bytes_small) {
  Fd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Fd log(::open((folder / "log").c_str(), O_RDWR | O_CLOEXEC));
  if (!lock || !log) return fail(Errc::kNotFound, folder.string() + ": no overlay is here");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(Errc::kUnavailable, folder.string() + ": another process has the overlay open");
  }
  std::array<std::byte, kOverlayHeaderBytes> header{};
  TRY(read_all(log.get(), 0, header));
  const OverlayRoot root = TRY(decode_overlay_header(header));
  Fd data(::open((folder / "data").c_str(), O_RDWR | O_CLOEXEC));
  if (!data) return io_error("open " + (folder / "data").string());
  // One byte more says that the map is complete.
  PageMap map = TRY(PageMap::open(folder / "map", root.pages() + 1, kMapMark));
  std::unique_ptr<Overlay> overlay(
      new Overlay(folder, root, std::move(lock), std::move(data), std::move(log), std::move(map)));
  overlay->log_bytes_small_ = log_bytes_small;
  TRY(overlay->replay_log());
  return overlay;
}

/// The states that the log says; cuts off a torn end.
Result<std::vector<std::uint8_t>> Overlay::read_log() {
  struct stat about {};
  if (::fstat(log_.get(), &about) != 0) return io_error("read the overlay's log");
  std::vector<std::byte> bytes(static_cast<std::size_t>(about.st_size));
  TRY(read_all(log_.get(), 0, bytes));
  std::vector<std::uint8_t> states(root_.pages());
  std::size_t at = kOverlayHeaderBytes;
  while (at < bytes.size()) {
    const auto decoded = decode_overlay_record(std::span(bytes).subspan(at), root_.pages());
    if (!decoded) break;
    committed_ = decoded->record.committed;
    for (const StateRun& run : decoded->record.runs) {
      std::fill_n(states.begin() + static_cast<long>(run.first), run.count, byte_of(run.state));
    }
    at += decoded->bytes;
  }
  log_bytes_ = at;
  if (at < bytes.size() && ::ftruncate(log_.get(), static_cast<off_t>(at)) != 0) {
    return io_error("cut the overlay's log");
  }
  return states;
}

Result<void> Overlay::replay_log() {
  const auto states = TRY(read_log());
  log_bytes_compact_ = log_bytes_;
  const std::uint64_t pages = root_.pages();
  const bool has_map = map_.was_kept() && map_[pages] == 1;
  for (std::uint64_t page = 0; page < pages; ++page) {
    std::uint8_t byte = map_[page].load(std::memory_order_relaxed);
    if (!has_map) {
      byte = states[page];
    } else if (byte == 0) {
      continue;
    } else {
      byte = static_cast<std::uint8_t>(byte & ~(kFrozen | kHandedOut | kSent));
    }
    map_[page].store(byte, std::memory_order_relaxed);
    if ((byte & kUnlogged) != 0) groups_unlogged_[page / kGroupPages] = true;
  }
  map_[pages] = 1;
  return {};
}

VersionId Overlay::committed() const {
  const std::lock_guard lock(log_mutex_);
  return committed_;
}

StateRun Overlay::run_at(std::uint64_t first, std::uint64_t end) const {
  StateRun run{.first = first, .count = 1, .state = state_of(map_[first])};
  while (first + run.count < end && state_of(map_[first + run.count]) == run.state) ++run.count;
  return run;
}

Result<void> Overlay::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  return read_all(data_.get(), offset, bytes);
}

Result<void> Overlay::write(std::uint64_t offset, std::span<const std::byte> bytes,
                            const ReadBase& read_base) {
  constexpr std::uint64_t kStripeBytes = kStripePages * kPageSize;
  while (!bytes.empty()) {
    const std::uint64_t room = kStripeBytes - offset % kStripeBytes;
    const auto part = bytes.first(std::min<std::uint64_t>(room, bytes.size()));
    TRY(write_in_stripe(offset, part, read_base));
    offset += part.size();
    bytes = bytes.subspan(part.size());
  }
  return {};
}

Result<void> Overlay::write_in_stripe(std::uint64_t offset, std::span<const std::byte> bytes,
                                      const ReadBase& read_base) {
  if (is_committing_) {
    std::unique_lock saved(saved_mutex_);
    saved_changed_.wait(saved, [&] { return !is_committing_ || saved_.size() < kSavedPagesMax; });
  }
  if (stopping_ > 0) const std::lock_guard turn(turnstile_);
  const std::shared_lock gate(gate_);
  const std::uint64_t first = offset / kPageSize;
  const std::lock_guard stripe_lock(stripe(first));
  TRY(save_frozen(first, (offset + bytes.size() - 1) / kPageSize - first + 1));
  if (const std::size_t from = offset % kPageSize; from != 0) {
    const auto part = bytes.first(std::min(kPageSize - from, bytes.size()));
    TRY(write_part(first, from, part, read_base));
    offset += part.size();
    bytes = bytes.subspan(part.size());
  }
  if (const std::size_t whole = bytes.size() / kPageSize * kPageSize; whole > 0) {
    TRY(write_data(offset, bytes.first(whole)));
    for (std::size_t done = 0; done < whole; done += kPageSize) {
      mark((offset + done) / kPageSize, PageState::kWritten);
    }
    offset += whole;
    bytes = bytes.subspan(whole);
  }
  if (bytes.empty()) return {};
  return write_part(offset / kPageSize, 0, bytes, read_base);
}

Result<void> Overlay::write_part(std::uint64_t page, std::size_t from,
                                 std::span<const std::byte> bytes, const ReadBase& read_base) {
  const PageState state = state_of(map_[page]);
  if (state == PageState::kWritten) {
    TRY(write_data(page * kPageSize + from, bytes));
  } else {
    std::array<std::byte, kPageSize> whole{};
    if (state == PageState::kBase) TRY(read_base(page, whole));
    std::copy(bytes.begin(), bytes.end(), whole.begin() + static_cast<long>(from));
    TRY(write_data(page * kPageSize, whole));
  }
  mark(page, PageState::kWritten);
  return {};
}

Result<void> Overlay::write_data(std::uint64_t offset, std::span<const std::byte> bytes) {
  auto written = write_all(data_.get(), offset, bytes);
  full_ = !written && errno == ENOSPC;
  return written;
}

Result<void> Overlay::zero(std::uint64_t offset, std::uint64_t bytes, const ReadBase& read_base) {
  static constexpr std::array<std::byte, kPageSize> kZeros{};
  const std::uint64_t end = offset + bytes;
  while (offset < end) {
    const std::uint64_t page = offset / kPageSize;
    const std::uint64_t whole = (end - page * kPageSize) / kPageSize;
    // The disk's last page may be cut short by its end: whole all the same.
    const bool is_last = end >= root_.size_bytes && page + 1 == root_.pages();
    if (offset % kPageSize != 0 || (whole == 0 && !is_last)) {
      const std::uint64_t part = std::min(end, (page + 1) * kPageSize) - offset;
      TRY(write_in_stripe(offset, std::span(kZeros).first(part), read_base));
      offset += part;
      continue;
    }
    const std::uint64_t room = kStripePages - page % kStripePages;
    const std::uint64_t count = std::min(room, std::max<std::uint64_t>(whole, 1));
    TRY(zero_pages(page, count));
    offset = (page + count) * kPageSize;
  }
  return {};
}

Result<void> Overlay::zero_pages(std::uint64_t first, std::uint64_t count) {
  if (stopping_ > 0) const std::lock_guard turn(turnstile_);
  const std::shared_lock gate(gate_);
  const std::lock_guard stripe_lock(stripe(first));
  TRY(save_frozen(first, count));
  bool had_data = false;
  for (std::uint64_t page = first; page < first + count; ++page) {
    had_data = had_data || state_of(map_[page]) == PageState::kWritten;
    mark(page, PageState::kZero);
  }
  if (!had_data) return {};
  const auto at = static_cast<off_t>(first * kPageSize);
  const auto bytes = static_cast<off_t>(count * kPageSize);
  const int freed = ::fallocate(data_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes);
  if (freed != 0 && errno != EOPNOTSUPP) return io_error("free room in the overlay");
  return {};
}

void Overlay::mark(std::uint64_t page, PageState state) {
  const std::uint8_t before = map_[page].load(std::memory_order_relaxed);
  if ((before & ~kUnlogged) == byte_of(state)) return;
  const bool logged = (before & kUnlogged) == 0 && state_of(before) == state;
  map_[page] = static_cast<std::uint8_t>(byte_of(state) | (logged ? 0 : kUnlogged));
  if (!logged) groups_unlogged_[page / kGroupPages] = true;
  if (is_moving_) groups_unsent_[page / kGroupPages] = true;
}

std::vector<StateRun> Overlay::unlogged_runs(std::vector<std::size_t>& groups) {
  std::vector<StateRun> runs;
  for (std::size_t group = 0; group < groups_unlogged_.size(); ++group) {
    if (!groups_unlogged_[group].load(std::memory_order_relaxed)) continue;
    if (!groups_unlogged_[group].exchange(false)) continue;
    groups.push_back(group);
    const std::uint64_t end = std::min((group + 1) * kGroupPages, root_.pages());
    for (std::uint64_t page = group * kGroupPages; page < end; ++page) {
      const std::uint8_t byte = map_[page];
      if ((byte & kUnlogged) == 0) continue;
      const PageState state = state_of(byte);
      append_page(runs, page, state);
    }
  }
  return runs;
}

void Overlay::settle_logged(const std::vector<StateRun>& runs) {
  for (const StateRun& run : runs) {
    for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
      std::uint8_t byte = map_[page];
      while (state_of(byte) == run.state && (byte & kUnlogged) != 0) {
        const auto logged = static_cast<std::uint8_t>(byte & ~kUnlogged);
        if (map_[page].compare_exchange_weak(byte, logged)) break;
      }
    }
  }
}

Result<void> Overlay::flush() {
  const std::lock_guard lock(log_mutex_);
  std::vector<std::size_t> groups;
  const auto runs = unlogged_runs(groups);
  const auto flushed = [&]() -> Result<void> {
    if (::fdatasync(data_.get()) != 0) return io_error("flush the overlay");
    return runs.empty() ? Result<void>() : append_log(runs);
  }();
  if (!flushed) {
    for (const std::size_t group : groups) groups_unlogged_[group] = true;
    return flushed;
  }
  settle_logged(runs);
  if (log_bytes_ > std::max(log_bytes_small_, 2 * log_bytes_compact_)) return compact_log();
  return {};
}

Result<void> Overlay::append_log(std::span<const StateRun> runs) {
  std::vector<std::byte> bytes;
  encode_runs(runs, committed_, bytes);
  TRY(write_all(log_.get(), log_bytes_, bytes));
  if (::fdatasync(log_.get()) != 0) return io_error("flush the overlay's log");
  log_bytes_ += bytes.size();
  return {};
}

/// Of the log alone: the map also has what was not flushed.
Result<void> Overlay::compact_log() {
  const auto runs = runs_of(TRY(read_log()));
  std::vector<std::byte> bytes = encode_overlay_header(root_);
  encode_runs(runs, committed_, bytes);
  TRY(replace_file(folder_ / "log", bytes));
  Fd log(::open((folder_ / "log").c_str(), O_RDWR | O_CLOEXEC));
  if (!log) return io_error("open the overlay's log");
  log_ = std::move(log);
  log_bytes_ = bytes.size();
  log_bytes_compact_ = bytes.size();
  return {};
}

Overlay::Usage Overlay::usage() const {
  Usage usage;
  for (std::uint64_t page = 0; page < root_.pages(); ++page) {
    const std::uint8_t byte = map_[page].load(std::memory_order_relaxed);
    if (state_of(byte) == PageState::kBase) continue;
    ++(state_of(byte) == PageState::kZero ? usage.zero_pages : usage.written_pages);
    if ((byte & kCommitted) == 0) ++usage.dirty_pages;
  }
  return usage;
}

/// A reader-preferring lock alone could be kept waiting for ever by a busy guest.
std::unique_lock<std::shared_mutex> Overlay::stop_writes() {
  ++stopping_;
  const std::lock_guard turn(turnstile_);
  std::unique_lock gate(gate_);
  --stopping_;
  return gate;
}

}  // namespace samepage::imagestore
