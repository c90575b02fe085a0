#include "imagestore/disk.h"

#include <algorithm>
#include <condition_variable>
#include <utility>

#include <sys/prctl.h>

#include "core/log.h"
#include "imagestore/disk_commit.h"
#include "imagestore/trace_keeper.h"

namespace samepage::imagestore {
namespace {

/// The pages that a range of bytes touches, whole.
struct Pages {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

Pages pages_of(std::uint64_t offset, std::uint64_t bytes) {
  const std::uint64_t first = offset / kPageSize;
  return {.first = first, .count = pages_in(offset + bytes) - first};
}

}  // namespace

Disk::Disk(Options options, std::unique_ptr<Overlay> overlay, std::unique_ptr<Mirror> mirror)
    : options_(std::move(options)),
      overlay_(std::move(overlay)),
      mirror_(std::move(mirror)),
      recorder_(overlay_->root().pages()) {
  const VersionId base = overlay_->root().base;
  BaseReader::Options reader;
  reader.open = [source = options_.source, base] { return VersionSource::open(source, base); };
  reader.threads = options_.threads;
  reader_ = std::make_unique<BaseReader>(std::move(reader), *mirror_);
  read_base_ = [this](std::uint64_t page, PageBuffer bytes) {
    recorder_.touch(page, 1);
    return reader_->read(page, bytes);
  };
}

Result<std::unique_ptr<Disk>> Disk::open(const Options& options) {
  auto overlay = TRY(Overlay::open(options.folder));
  const OverlayRoot& root = overlay->root();
  auto mirror = TRY(Mirror::open(options.mirrors, root.base, root.pages()));
  std::unique_ptr<Disk> disk(new Disk(options, std::move(overlay), std::move(mirror)));
  if (options.traces) {
    disk->trace_thread_ = std::jthread([borrowed = disk.get()](const std::stop_token& stop) {
      ::prctl(PR_SET_NAME, "boot-trace");
      borrowed->tend_trace(stop);
    });
  }
  return disk;
}

Disk::~Disk() {
  trace_thread_ = {};
  reader_.reset();
}

Result<void> Disk::read(std::uint64_t offset, std::span<std::byte> bytes) {
  const std::uint64_t end = offset + bytes.size();
  while (offset < end) {
    const std::uint64_t page = offset / kPageSize;
    const StateRun run = overlay_->run_at(page, pages_in(end));
    const std::uint64_t stop = std::min(end, (page + run.count) * kPageSize);
    const auto part = bytes.first(stop - offset);
    bytes = bytes.subspan(part.size());
    if (run.state == PageState::kWritten) {
      TRY(overlay_->read(offset, part));
    } else if (run.state == PageState::kZero) {
      std::fill(part.begin(), part.end(), std::byte{0});
    } else if (offset % kPageSize == 0 && part.size() % kPageSize == 0) {
      recorder_.touch(page, run.count);
      TRY(reader_->read(page, part));
    } else {
      recorder_.touch(page, run.count);
      std::vector<std::byte> whole(run.count * kPageSize);
      TRY(reader_->read(page, whole));
      std::copy_n(whole.begin() + static_cast<long>(offset % kPageSize), part.size(), part.begin());
    }
    offset = stop;
  }
  return {};
}

Result<void> Disk::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  TRY(overlay_->write(offset, bytes, read_base_));
  throttle_.wrote(bytes.size());
  return {};
}

Result<void> Disk::zero(std::uint64_t offset, std::uint64_t bytes) {
  return overlay_->zero(offset, bytes, read_base_);
}

Disk::Stretch Disk::stretch_at(std::uint64_t offset, std::uint64_t end) {
  const std::uint64_t page = offset / kPageSize;
  const StateRun local = overlay_->run_at(page, pages_in(end));
  const auto stretch = [&](std::uint64_t pages, bool is_zero, bool is_local) {
    return Stretch{.bytes = std::min(end, (page + pages) * kPageSize) - offset,
                   .is_zero = is_zero,
                   .is_local = is_local};
  };
  if (local.state != PageState::kBase) {
    return stretch(local.count, local.state == PageState::kZero, true);
  }
  const std::uint64_t leaf_end = (page / kFanOut + 1) * kFanOut;
  StateRun base = mirror_->run_at(page, std::min(page + local.count, leaf_end));
  if (base.state == PageState::kBase && reader_->resolve(page)) {
    base = mirror_->run_at(page, std::min(page + local.count, leaf_end));
  }
  return stretch(base.count, base.state == PageState::kZero, false);
}

void Disk::prefetch(std::uint64_t offset, std::uint64_t bytes) {
  const Pages range = pages_of(offset, bytes);
  std::vector<std::uint64_t> pages(range.count);
  for (std::uint64_t i = 0; i < range.count; ++i) pages[i] = range.first + i;
  reader_->prefetch(pages);
}

Result<CommitReport> Disk::finish_commit(const std::string& image) {
  auto committed = commit_overlay(*overlay_, options_.folder / "intent", options_.source.store,
                                  {.image = image, .source_image = options_.image});
  if (!committed) overlay_->abandon_commit();
  return committed;
}

Disk::Status Disk::status() const {
  Status status;
  status.root = overlay_->root();
  status.committed = overlay_->committed();
  status.usage = overlay_->usage();
  status.fetched = reader_->counts();
  status.traced_pages = traced_pages_;
  status.followed_pages = followed_pages_;
  return status;
}

void Disk::tend_trace(const std::stop_token& stop) {
  // Traces and manifests come from the origin: no node is needed.
  TraceKeeper keeper({.source = {.store = options_.source.store},
                      .version = overlay_->root().base,
                      .image = options_.image,
                      .boot_max = options_.boot_max,
                      .quiet_max = options_.quiet_max},
                     recorder_, *reader_);
  while (keeper.tend(stop)) {
    traced_pages_ = keeper.traced_pages();
    followed_pages_ = keeper.followed_pages();
  }
  traced_pages_ = keeper.traced_pages();
  recorder_.finish();
}

}  // namespace samepage::imagestore
