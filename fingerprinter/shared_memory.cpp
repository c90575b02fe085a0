#include "fingerprinter/shared_memory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/page.h"
#include "fingerprinter/file_data.h"
#include "fingerprinter/read_fully.h"

// When the file is mapped
//
// A map spares the copy. But one that reads behind a shrunk file ends this process with SIGBUS, so
// only a file that is sealed against shrinking is mapped (QEMU seals the memfd that it makes). And
// a map that reads a hole allocates a page in the guest's file, so view() shows only what has no
// holes at that moment, and everything else is read with pread(), which does neither. mincore()
// tells holes within the run alone (SEEK_HOLE would walk on to the file's next hole), but tells the
// truth only to who owns the file or may do anything.
//
// The populated runs are found by both: SEEK_DATA jumps over holes of any size, and mincore() walks
// over data that is mapped here 15 times faster than SEEK_HOLE does.

namespace samepage::fingerprinter {
namespace {

/// The pages that mincore() calls resident at the front: eight at a time while all are.
std::size_t count_resident(std::span<const unsigned char> pages) {
  constexpr std::uint64_t kAllEight = 0x0101010101010101;
  std::size_t count = 0;
  for (std::uint64_t eight = 0; count + sizeof(eight) <= pages.size(); count += sizeof(eight)) {
    std::memcpy(&eight, &pages[count], sizeof(eight));
    if ((eight & kAllEight) != kAllEight) break;
  }
  while (count < pages.size() && (pages[count] & 1U) != 0) ++count;
  return count;
}

class SharedMemory final : public GuestMemory {
 public:
  SharedMemory(GuestProcess process, const RamBlock& ram, Fd file)
      : process_(std::move(process)),
        pages_(ram.bytes / kPageSize),
        first_(ram.first.offset / kPageSize),
        file_(std::move(file)) {
    map();
  }
  ~SharedMemory() override {
    if (!mapped_.empty()) ::munmap(mapped_.data(), mapped_.size());
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::uint64_t pages() const override { return pages_; }

  Result<std::vector<PageRun>> populated() override { return populated_within({0, pages_}); }

  Result<std::vector<PageRun>> populated_within(PageRun range) override {
    std::vector<PageRun> runs;
    const std::uint64_t end = range.first + range.count;
    for (std::uint64_t at = range.first; at < end;) {
      const auto data = TRY(of_process(next_data(file_, first_ + at)));
      if (!data || *data - first_ >= end) break;
      const std::uint64_t first = *data - first_;
      const PageRun run{first, TRY(data_pages({first, end - first}))};
      if (run.count > 0) runs.push_back(run);
      at = run.first + run.count + 1;  // What follows is no data, or the range's end.
    }
    if (!process_.alive()) return failed("populated");
    return runs;
  }

  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    const auto done = read_fully(file_, (first_ + first) * kPageSize, destination);
    if (!done) return failed(done.error().message());
    if (!process_.alive()) return failed("read");
    return {};
  }

  Result<std::span<const std::byte>> view(PageRun run) override {
    if (!process_.alive()) return failed("view");
    if (mapped_.empty()) return std::span<const std::byte>();
    const auto view = mapped_.subspan(run.first * kPageSize, run.count * kPageSize);
    const bool whole = TRY(resident_pages(run)) == run.count;
    return whole ? std::span<const std::byte>(view) : std::span<const std::byte>();
  }

 private:
  /// Of a range that begins with data, how many pages follow each other; 0: the first is swapped
  /// out.
  Result<std::uint64_t> data_pages(PageRun range) const {
    if (!mapped_.empty()) return resident_pages(range);
    const auto hole = TRY(of_process(next_hole(file_, first_ + range.first)));
    return std::min(range.count, hole - first_ - range.first);
  }

  /// The resident pages at a range's begin, of mapped memory.
  Result<std::uint64_t> resident_pages(PageRun range) const {
    std::array<unsigned char, 4096> resident;
    for (std::uint64_t at = 0; at < range.count;) {
      const auto pages =
          std::span(resident).first(std::min<std::size_t>(range.count - at, resident.size()));
      std::byte* const address = &mapped_[(range.first + at) * kPageSize];
      if (::mincore(address, pages.size() * kPageSize, pages.data()) != 0) return failed("mincore");
      const std::size_t count = count_resident(pages);
      at += count;
      if (count < pages.size()) return at;
    }
    return range.count;
  }

  void map() {
    const int seals = ::fcntl(file_.get(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return;
    const std::size_t bytes = pages_ * kPageSize;
    const off_t size = ::lseek(file_.get(), 0, SEEK_END);
    if (size < static_cast<off_t>((first_ + pages_) * kPageSize)) return;
    struct stat file {};
    if (::fstat(file_.get(), &file) != 0) return;
    if (::geteuid() != 0 && ::geteuid() != file.st_uid) return;
    void* const at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, file_.get(),
                            static_cast<off_t>(first_ * kPageSize));
    if (at != MAP_FAILED) mapped_ = {static_cast<std::byte*>(at), bytes};
  }

  /// What went wrong with the file is the process's end, if it has ended.
  template <class T>
  Result<T> of_process(Result<T> found) const {
    if (!found) return failed(found.error().message());
    return found;
  }
  tl::unexpected<Error> failed(const std::string& message) const {
    return tl::unexpected(process_.blame(message));
  }

  const GuestProcess process_;
  const std::uint64_t pages_;
  const std::uint64_t first_;  ///< In the file.
  const Fd file_;
  std::span<std::byte> mapped_;
};

}  // namespace

std::unique_ptr<GuestMemory> open_shared_memory(GuestProcess process, const RamBlock& ram,
                                                Fd file) {
  return std::make_unique<SharedMemory>(std::move(process), ram, std::move(file));
}

}  // namespace samepage::fingerprinter
