#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "fingerprinter/page_scanner.h"
#include "pagecache/page_cipher.h"
#include "pagecache/page_source.h"

namespace samepage::pagecache {

/// The pages that a guest held at some moment, on disk, so that it can leave this host and still be
/// found here when it or one of its twins comes.
///
/// Invariant: the disk never sees a page that is not encrypted, and the key is only in this
/// process's memory (PageCipher): the file has no name, and neither a thief nor the next process
/// can read it. Threads: every method may be called from any thread.
class Checkpoint final {
 public:
  /// kNotFound: it cannot be read. A page that it does not hold reads as garbage.
  Result<void> read(std::uint64_t page, PageBuffer destination) const;

  /// By rising page number, as the guest's.
  const std::vector<fingerprinter::ScannedPage>& pages() const { return pages_; }
  std::uint64_t bytes() const { return pages_.size() * kPageSize; }

 private:
  friend class CheckpointWriter;
  Checkpoint(Fd file, std::unique_ptr<PageCipher> cipher)
      : file_(std::move(file)), cipher_(std::move(cipher)) {}

  const Fd file_;  // Sparse: page N at N * 4096.
  const std::unique_ptr<PageCipher> cipher_;
  std::vector<fingerprinter::ScannedPage> pages_;
};

/// Makes a checkpoint page by page, in any order; of a page's versions the last one counts.
/// Threads: one at a time.
class CheckpointWriter final {
 public:
  struct Options {
    std::string folder;
    std::uint64_t bytes_max = 0;      ///< Further pages are left out.
    std::uint64_t disk_free_min = 0;  ///< Bytes that are left on the disk.
    HashSeed seed;
  };
  static constexpr std::uint64_t kPageNumberMax = std::uint64_t{1} << 34U;  ///< Of 64 TiB.

  /// kIo: the folder cannot be written, or there is no key.
  static Result<std::unique_ptr<CheckpointWriter>> create(const Options& options);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Neighbours that follow each other are written at once. Pages that are zero are left out, and
  /// all further ones once the bound is reached or the disk is full.
  void put(std::uint64_t number, PageView page);

  /// What was put. Nothing may be put any more.
  std::shared_ptr<const Checkpoint> finish();

 private:
  CheckpointWriter(const Options& options, std::shared_ptr<Checkpoint> checkpoint);
  void flush();
  bool has_room(std::uint64_t more);
  void drop_old_versions();

  const Options options_;
  std::shared_ptr<Checkpoint> checkpoint_;
  std::vector<std::byte> run_;  ///< Pages from first_ on.
  std::vector<std::byte> sealed_;
  std::uint64_t first_ = 0;
  std::uint64_t count_ = 0;
  std::size_t clean_up_at_;
  bool is_full_ = false;
};

/// A checkpoint as a source of a PageCache.
class CheckpointSource final : public PageSource {
 public:
  CheckpointSource(std::shared_ptr<const Checkpoint> checkpoint, std::string vm_name)
      : checkpoint_(std::move(checkpoint)), vm_name_(std::move(vm_name)) {}

  Result<void> read(std::uint64_t page, PageBuffer destination) override {
    return checkpoint_->read(page, destination);
  }
  std::string name() const override { return "checkpoint of " + vm_name_; }

 private:
  const std::shared_ptr<const Checkpoint> checkpoint_;
  const std::string vm_name_;
};

}  // namespace samepage::pagecache
