#include "imagestore/pack_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <xxhash.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"

namespace samepage::imagestore {
namespace {

constexpr std::string_view kPackMark = "SAMEPACK";
constexpr std::uint32_t kPackFormat = 1;

constexpr std::string_view kRecordMark = "SPrecord";
constexpr std::size_t kRecordHeaderBytes = 8 + 4 + 32 + 8;  // Mark, u32 size, name, u64 checksum.

struct RecordHeader {
  std::uint32_t size = 0;
  ObjectName name;
  std::uint64_t checksum = 0;
};

tl::unexpected<Error> io_error(std::string_view what) {
  return fail(Errc::kIo, std::string(what) + ": " + std::generic_category().message(errno));
}

/// Over everything but itself, so that a flipped bit anywhere in the record is seen.
std::uint64_t checksum(const ObjectName& name, std::span<const std::byte> bytes) {
  const XXH64_hash_t seed =
      XXH3_64bits_withSeed(name.bytes.data(), name.bytes.size(), bytes.size());
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

Result<RecordHeader> parse_record_header(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  const auto mark = TRY(reader.raw(kRecordMark.size()));
  if (std::memcmp(mark.data(), kRecordMark.data(), mark.size()) != 0) {
    return fail(Errc::kCorrupt, "no record begins here");
  }
  RecordHeader header;
  header.size = TRY(reader.u32());
  if (header.size > kObjectBytesMax) return fail(Errc::kCorrupt, "a record beyond the limit");
  const auto name = TRY(reader.raw(header.name.bytes.size()));
  std::copy(name.begin(), name.end(), header.name.bytes.begin());
  header.checksum = TRY(reader.u64());
  return header;
}

std::vector<std::byte> record_header(const ObjectName& name, std::span<const std::byte> bytes) {
  ByteWriter header;
  header.raw(std::as_bytes(std::span(kRecordMark)));
  header.u32(static_cast<std::uint32_t>(bytes.size()));
  header.raw(name.bytes);
  header.u64(checksum(name, bytes));
  return header.take();
}

Result<void> flush_folder(const std::filesystem::path& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return io_error("flush " + folder.string());
  return {};
}

/// Writes both parts at `offset`, however often the kernel stops short.
Result<void> write_at(int fd, std::span<const std::byte> first, std::span<const std::byte> second,
                      std::uint64_t offset) {
  while (!first.empty() || !second.empty()) {
    std::array<iovec, 2> parts{
        iovec{.iov_base = const_cast<std::byte*>(first.data()), .iov_len = first.size()},
        iovec{.iov_base = const_cast<std::byte*>(second.data()), .iov_len = second.size()}};
    const ssize_t written = ::pwritev(fd, parts.data(), 2, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return io_error("write to a pack");
    const auto done = static_cast<std::size_t>(written);
    offset += done;
    const std::size_t of_first = std::min(done, first.size());
    first = first.subspan(of_first);
    second = second.subspan(done - of_first);
  }
  return {};
}

}  // namespace

std::vector<std::byte> encode_record(const ObjectName& name, std::span<const std::byte> bytes) {
  auto record = record_header(name, bytes);
  record.insert(record.end(), bytes.begin(), bytes.end());
  return record;
}

Result<std::vector<std::byte>> decode_record(std::vector<std::byte> record,
                                             const ObjectName& name) {
  const RecordHeader header = TRY(parse_record_header(record));
  if (PackFile::record_bytes(header.size) != record.size() || header.name != name) {
    return fail(Errc::kCorrupt, "another record lies there");
  }
  record.erase(record.begin(), record.begin() + kRecordHeaderBytes);
  if (checksum(name, record) != header.checksum) {
    return fail(Errc::kCorrupt, "the record does not match its checksum");
  }
  return record;
}

std::uint64_t PackFile::record_bytes(std::size_t object_bytes) {
  return kRecordHeaderBytes + object_bytes;
}

Result<PackFile> PackFile::create(const std::filesystem::path& path, std::uint32_t number) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return io_error("create " + path.string());
  ByteWriter header;
  header.raw(std::as_bytes(std::span(kPackMark)));
  header.u32(kPackFormat);
  header.u32(number);
  auto made = write_at(fd.get(), header.view(), {}, 0);
  if (made) made = flush_folder(path.parent_path());
  if (!made) {
    ::unlink(path.c_str());
    return tl::unexpected(std::move(made).error());
  }
  return PackFile(std::move(fd), number, kHeaderBytes);
}

Result<PackFile> PackFile::open(const std::filesystem::path& path, std::uint32_t number,
                                bool writable) {
  Fd fd(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!fd) {
    const Errc code = errno == ENOENT ? Errc::kNotFound : Errc::kIo;
    return fail(code, path.string() + ": " + std::generic_category().message(errno));
  }
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return io_error(path.string());
  PackFile pack(std::move(fd), number, static_cast<std::uint64_t>(about.st_size));
  const auto header = TRY(pack.read_bytes(0, kHeaderBytes));
  ByteReader reader(header);
  const auto mark = TRY(reader.raw(kPackMark.size()));
  if (std::memcmp(mark.data(), kPackMark.data(), mark.size()) != 0) {
    return fail(Errc::kCorrupt, path.string() + ": not a pack");
  }
  const std::uint32_t format = TRY(reader.u32());
  if (format != kPackFormat) {
    return fail(Errc::kInvalid, path.string() + ": pack format " + std::to_string(format) +
                                    " is of another release");
  }
  if (TRY(reader.u32()) != number) return fail(Errc::kCorrupt, path.string() + ": another pack");
  return pack;
}

Result<bool> PackFile::refresh() {
  struct stat about {};
  if (::fstat(fd_.get(), &about) != 0) return io_error("pack " + std::to_string(number_));
  bytes_ = static_cast<std::uint64_t>(about.st_size);
  return about.st_nlink > 0;
}

bool PackFile::try_lock(Lock lock) {
  return ::flock(fd_.get(), (lock == Lock::kShared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0;
}

void PackFile::unlock() {
  ::flock(fd_.get(), LOCK_UN);
}

Result<std::uint64_t> PackFile::punch(std::uint64_t offset, std::uint64_t bytes) {
  struct stat before {};
  struct stat after {};
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (::fstat(fd_.get(), &before) != 0 ||
      ::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(bytes)) != 0 ||
      ::fstat(fd_.get(), &after) != 0) {
    return io_error("free room in pack " + std::to_string(number_));
  }
  constexpr std::uint64_t kBlock = 512;  // What st_blocks counts in.
  return after.st_blocks >= before.st_blocks
             ? 0
             : static_cast<std::uint64_t>(before.st_blocks - after.st_blocks) * kBlock;
}

Result<RecordPlace> PackFile::append(const ObjectName& name, std::span<const std::byte> bytes) {
  auto written = write_at(fd_.get(), record_header(name, bytes), bytes, bytes_);
  if (!written) {
    TRY(truncate(bytes_));
    return tl::unexpected(std::move(written).error());
  }
  const RecordPlace place{.offset = bytes_, .bytes = record_bytes(bytes.size())};
  bytes_ += place.bytes;
  return place;
}

Result<void> PackFile::flush() {
  if (::fdatasync(fd_.get()) != 0) return io_error("flush pack " + std::to_string(number_));
  return {};
}

Result<void> PackFile::truncate(std::uint64_t bytes) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) {
    return io_error("cut off pack " + std::to_string(number_));
  }
  bytes_ = bytes;
  return {};
}

Result<std::vector<std::byte>> PackFile::read_bytes(std::uint64_t offset, std::size_t size) const {
  std::vector<std::byte> bytes(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got =
        ::pread(fd_.get(), bytes.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read pack " + std::to_string(number_));
    if (got == 0) return fail(Errc::kCorrupt, "the pack ends too early");
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

Result<std::vector<std::byte>> PackFile::read(const RecordPlace& place,
                                              const ObjectName& name) const {
  if (place.bytes < kRecordHeaderBytes || place.bytes > record_bytes(kObjectBytesMax)) {
    return fail(Errc::kCorrupt, "no record has that size");
  }
  return decode_record(TRY(read_bytes(place.offset, place.bytes)), name);
}

Result<std::uint64_t> PackFile::find_record_mark(std::uint64_t offset) const {
  constexpr std::size_t kWindowBytes = 1U << 20U;
  const std::string_view mark = kRecordMark;
  while (offset + mark.size() <= bytes_) {
    const std::size_t size = std::min<std::uint64_t>(kWindowBytes, bytes_ - offset);
    const auto window = TRY(read_bytes(offset, size));
    const std::string_view text(reinterpret_cast<const char*>(window.data()), window.size());
    const std::size_t found = text.find(mark);
    if (found != std::string_view::npos) return offset + found;
    offset += size - mark.size() + 1;
  }
  return bytes_;
}

Result<std::uint64_t> PackFile::scan(
    std::uint64_t offset,
    const std::function<Result<void>(const ObjectName&, const RecordPlace&)>& visit) const {
  offset = std::max<std::uint64_t>(offset, kHeaderBytes);
  std::uint64_t end = offset;
  while (offset + kRecordHeaderBytes <= bytes_) {
    const auto found = TRY(whole_record(offset));
    if (!found) {
      offset = TRY(find_record_mark(offset + 1));
      continue;
    }
    TRY(visit(found->first, found->second));
    offset += found->second.bytes;
    end = offset;
  }
  return end;
}

Result<std::optional<std::pair<ObjectName, RecordPlace>>> PackFile::whole_record(
    std::uint64_t offset) const {
  const auto bytes = TRY(read_bytes(offset, kRecordHeaderBytes));
  const auto header = parse_record_header(bytes);
  if (!header || offset + record_bytes(header->size) > bytes_) return std::nullopt;
  const RecordPlace place{.offset = offset, .bytes = record_bytes(header->size)};
  const auto body = read(place, header->name);
  if (body) return std::pair(header->name, place);
  if (body.error().code() == Errc::kIo) return tl::unexpected(body.error());
  return std::nullopt;
}

}  // namespace samepage::imagestore
