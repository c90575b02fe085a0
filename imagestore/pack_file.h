#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// Where a record lies in a pack, its header included.
struct RecordPlace {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

/// A record's bytes: what stores an object with its name and checksum, in a pack or elsewhere.
std::vector<std::byte> encode_record(const ObjectName& name, std::span<const std::byte> bytes);

/// The object in a record. kCorrupt: damaged, or not `name`'s.
Result<std::vector<std::byte>> decode_record(std::vector<std::byte> record, const ObjectName& name);

/// A record in a folder of packs.
struct ObjectPlace {
  std::uint32_t pack = 0;
  RecordPlace record;
};

/// One append-only file of self-describing records (docs/formats/imagestore.md).
///
/// Threads: one at a time; read() from any number of objects and processes beside one appender at a
/// time, who refresh()es first.
/// Errors: kIo: the disk refused or is full.
class PackFile {
 public:
  static constexpr std::uint64_t kHeaderBytes = 16;  ///< Mark, u32 format, u32 number.

  /// Makes an empty pack and its folder entry durable. kIo also when the file exists.
  static Result<PackFile> create(const std::filesystem::path& path, std::uint32_t number);

  /// kCorrupt: not a pack, or not number `number`. kInvalid: a pack of another release.
  /// kNotFound: no such file.
  static Result<PackFile> open(const std::filesystem::path& path, std::uint32_t number,
                               bool writable);

  std::uint32_t number() const { return number_; }

  /// Bytes of the file as far as this object knows: where the next record goes.
  std::uint64_t bytes() const { return bytes_; }

  /// Learns what others appended. False: the file has been removed, nothing must be appended.
  Result<bool> refresh();

  enum class Lock : std::uint8_t { kShared, kExclusive };

  /// False: somebody else holds a lock that excludes it. Held by this object, whatever process it
  /// is in, until unlock() or its end.
  bool try_lock(Lock lock);
  void unlock();

  /// Gives the room of a range back to the disk, which reads as zeros from then on. Whole blocks
  /// only: a range's ragged ends stay. Returns the bytes freed.
  Result<std::uint64_t> punch(std::uint64_t offset, std::uint64_t bytes);

  /// What append() would add for an object of `object_bytes`.
  static std::uint64_t record_bytes(std::size_t object_bytes);

  /// After an error the file ends where it ended before, or truncate() says why not.
  Result<RecordPlace> append(const ObjectName& name, std::span<const std::byte> bytes);

  /// Flushes what was appended to the disk.
  Result<void> flush();

  /// Cuts the file off at `bytes`, a record's end.
  Result<void> truncate(std::uint64_t bytes);

  /// kCorrupt: the record there is damaged, or is not `name`'s.
  Result<std::vector<std::byte>> read(const RecordPlace& place, const ObjectName& name) const;

  /// Visits every whole record from `offset` on, looking for the next one behind damaged bytes.
  /// Returns the end of the last one, or `offset`.
  Result<std::uint64_t> scan(
      std::uint64_t offset,
      const std::function<Result<void>(const ObjectName&, const RecordPlace&)>& visit) const;

 private:
  PackFile(Fd fd, std::uint32_t number, std::uint64_t bytes)
      : fd_(std::move(fd)), number_(number), bytes_(bytes) {}

  Result<std::vector<std::byte>> read_bytes(std::uint64_t offset, std::size_t size) const;
  Result<std::optional<std::pair<ObjectName, RecordPlace>>> whole_record(
      std::uint64_t offset) const;
  Result<std::uint64_t> find_record_mark(std::uint64_t offset) const;

  Fd fd_;
  std::uint32_t number_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace samepage::imagestore
