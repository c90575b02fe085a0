#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "fingerprinter/guest_memory.h"
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
  struct Options {
    std::string folder;
    std::uint64_t bytes_max = 0;      ///< Later pages are left out.
    std::uint64_t disk_free_min = 0;  ///< Bytes that are left on the disk.
    std::stop_token stop{};           ///< Ends the copying; what was copied counts.
    HashSeed seed;
  };

  /// Copies the guest's populated pages, in their order, but for those that are zero. A guest that
  /// ends meanwhile, a disk that fills up and the bound leave the rest out. kIo: the folder cannot
  /// be written, or there is no key.
  static Result<std::shared_ptr<const Checkpoint>> take(fingerprinter::GuestMemory& memory,
                                                        const Options& options);

  /// kNotFound: it cannot be read. A page that it does not hold reads as garbage.
  Result<void> read(std::uint64_t page, PageBuffer destination) const;

  /// By rising page number, as the guest's.
  const std::vector<fingerprinter::ScannedPage>& pages() const { return pages_; }
  std::uint64_t bytes() const { return pages_.size() * kPageSize; }

 private:
  Checkpoint(Fd file, std::unique_ptr<PageCipher> cipher)
      : file_(std::move(file)), cipher_(std::move(cipher)) {}
  Result<void> copy(fingerprinter::GuestMemory& memory, const Options& options);
  Result<void> write(std::uint64_t first, std::span<const std::byte> pages, HashSeed seed);

  const Fd file_;  // Sparse: page N at N * 4096.
  const std::unique_ptr<PageCipher> cipher_;
  std::vector<fingerprinter::ScannedPage> pages_;
  std::vector<std::byte> sealed_;
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
