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

/// One append-only file of self-describing records (docs/formats/imagestore.md).
///
/// Threads: one at a time; read() from any number of objects and processes beside one appender.
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
