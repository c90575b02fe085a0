#include "tools/samepaged/template_store.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include <fcntl.h>
#include <unistd.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/fd.h"
#include "core/log.h"
#include "imagestore/commit.h"
#include "imagestore/image_reader.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"
#include "imagestore/version_source.h"
#include "migrator/boot_disks.h"

namespace samepage::agent {
namespace {

namespace fs = std::filesystem;
using imagestore::ImageStore;
using migrator::TemplateState;

constexpr std::string_view kSuffix = ".template";
constexpr std::string_view kTrailerMagic = "SPTRAIL1";
constexpr auto kFetchMax = std::chrono::seconds(60);
constexpr std::size_t kFetchesAtOnce = 64;

std::string image_of(const std::string& name) {
  return name + std::string(kSuffix);
}

std::size_t whole_pages(std::size_t bytes) {
  return (bytes + kPageSize - 1) / kPageSize * kPageSize;
}

std::vector<std::byte> trailer(const TemplateState& state, std::size_t state_bytes) {
  ByteWriter writer;
  writer.raw(std::as_bytes(std::span(kTrailerMagic)));
  writer.u64(state.memory_bytes);
  writer.u64(state_bytes);
  auto page = writer.take();
  page.resize(kPageSize);
  return page;
}

Result<TemplateState> read_state(ImageStore& store, const std::string& image) {
  const auto reader = TRY(imagestore::ImageReader::open(store, image));
  const std::uint64_t size = reader->size_bytes();
  std::array<std::byte, kPageSize> page{};
  if (size < 2 * kPageSize) return fail(Errc::kCorrupt, image + " is no template");
  TRY(reader->read(size - kPageSize, page));
  ByteReader end(page);
  const auto magic = TRY(end.raw(kTrailerMagic.size()));
  const std::uint64_t memory_bytes = TRY(end.u64());
  const std::uint64_t state_bytes = TRY(end.u64());
  const bool fits = std::ranges::equal(magic, std::as_bytes(std::span(kTrailerMagic))) &&
                    state_bytes <= TemplateState::kBytesMax && memory_bytes < size &&
                    memory_bytes + whole_pages(state_bytes) + kPageSize == size;
  if (!fits) return fail(Errc::kCorrupt, image + " is no complete template");
  std::vector<std::byte> bytes(state_bytes);
  TRY(reader->read(memory_bytes, bytes));
  TemplateState state = TRY(TemplateState::parse(bytes));
  if (image_of(state.name) != image || state.memory_bytes != memory_bytes) {
    return fail(Errc::kCorrupt, image + " holds another template");
  }
  return state;
}

Result<void> write_at(const Fd& file, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done =
        ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      return fail(Errc::kIo, std::string("a template's RAM file cannot be written: ") +
                                 std::strerror(done < 0 ? errno : ENOSPC));
    }
    offset += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return {};
}

/// Writes the RAM pages of a manifest to a file, many extents under way at once.
class RamWriter {
 public:
  RamWriter(imagestore::VersionSource& version, const Fd& file)
      : version_(version), source_(version.extents()), file_(file) {}

  Result<void> want(std::uint64_t page, const imagestore::PageRef& ref) {
    auto [found, is_new] = wanted_.try_emplace(ref.place.extent);
    if (is_new) order_.push_back(ref.place.extent);
    found->second.push_back({page, ref.digest});
    return {};
  }

  Result<void> run() {
    std::vector<std::unique_ptr<imagestore::ExtentBuffer>> buffers(
        std::min(kFetchesAtOnce, source_.fetches_max()));
    std::vector<std::size_t> idle;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      buffers[i] = imagestore::ExtentBuffer::create();
      idle.push_back(i);
    }
    std::vector<imagestore::ObjectName> under_way(buffers.size());
    std::size_t next = 0;
    while (next < order_.size() || source_.under_way() > 0) {
      version_.tend();
      while (next < order_.size() && !idle.empty()) {
        const std::size_t slot = idle.back();
        idle.pop_back();
        under_way[slot] = order_[next++];
        const imagestore::ExtentFetch fetch{
            .tag = slot, .name = under_way[slot], .into = buffers[slot].get()};
        TRY(source_.start({&fetch, 1}));
      }
      const auto fetched = source_.poll(Deadline::clock::now() + kFetchMax);
      if (fetched.empty()) return fail(Errc::kTimedOut, "the image store does not answer");
      for (const imagestore::FetchedExtent& one : fetched) {
        if (!one.result) return one.result;
        TRY(write(under_way[one.tag], *buffers[one.tag]));
        idle.push_back(one.tag);
      }
    }
    return {};
  }

  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Want {
    std::uint64_t page;
    PageDigest digest;
  };

  Result<void> write(const imagestore::ObjectName& name, const imagestore::ExtentBuffer& extent) {
    bytes_ += extent.count() * kPageSize;
    for (const Want& want : wanted_.at(name)) {
      const auto slot = extent.find(want.digest);
      if (!slot) return fail(Errc::kCorrupt, "an extent lacks a page that a template names in it");
      TRY(write_at(file_, want.page * kPageSize, extent.page(*slot)));
    }
    return {};
  }

  imagestore::VersionSource& version_;
  imagestore::ExtentSource& source_;
  const Fd& file_;
  std::unordered_map<imagestore::ObjectName, std::vector<Want>> wanted_;
  std::vector<imagestore::ObjectName> order_;
  std::uint64_t bytes_ = 0;
};

bool differs(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::memcmp(a.data(), b.data(), a.size()) != 0;
}

}  // namespace

Result<std::unique_ptr<ImageStore>> TemplateStore::open(
    imagestore::DirOrigin::Access access) const {
  ImageStore::Options store = options_.images;
  store.access = access;
  return ImageStore::open(store);
}

Result<void> TemplateStore::put(const migrator::ShelvedTemplate& shelved) const {
  const TemplateState& state = shelved.state;
  const auto store = TRY(open(imagestore::DirOrigin::Access::kWrite));
  imagestore::ImportOptions import;
  import.path = shelved.ram_file();
  import.name = image_of(state.name);
  import.format = "raw";
  const auto imported = TRY(imagestore::import_image(*store, import, clock_));
  auto bytes = state.serialize();
  const std::size_t state_bytes = bytes.size();
  bytes.resize(whole_pages(state_bytes));
  imagestore::CommitOptions options{.image = import.name, .base = imported.version.id};
  options.size_bytes = state.memory_bytes + bytes.size() + kPageSize;
  const auto commit = TRY(imagestore::Commit::begin(*store, options));
  const std::uint64_t first = state.memory_bytes / kPageSize;
  TRY(commit->put(first, bytes));
  TRY(commit->put(first + bytes.size() / kPageSize, trailer(state, state_bytes)));
  TRY(commit->finish(clock_));
  log_info("template stored name={} pages={} new_pages={} duplicate_pages={} zero_pages={}",
           state.name, imported.pages, imported.new_pages, imported.duplicate_pages,
           imported.zero_pages);
  return {};
}

std::vector<TemplateState> TemplateStore::list() const {
  std::vector<TemplateState> found;
  const auto store = open(imagestore::DirOrigin::Access::kRead);
  if (!store) return found;
  const auto images = (*store)->catalog().list();
  if (!images) return found;
  for (const imagestore::Image& image : *images) {
    if (!image.name.ends_with(kSuffix)) continue;
    auto state = read_state(**store, image.name);
    if (state) {
      found.push_back(*std::move(state));
    } else {
      log_debug("no template image={} why=\"{}\"", image.name, state.error().message());
    }
  }
  return found;
}

Result<TemplateState> TemplateStore::find(const std::string& name) const {
  TRY(migrator::check_template_name(name));
  const auto store = TRY(open(imagestore::DirOrigin::Access::kRead));
  return read_state(*store, image_of(name));
}

Result<std::uint64_t> TemplateStore::get_ram(const TemplateState& state,
                                             const fs::path& path) const {
  const auto store = TRY(open(imagestore::DirOrigin::Access::kRead));
  const auto version = TRY(store->catalog().version(image_of(state.name), 0));
  const auto source = TRY(imagestore::VersionSource::open(
      {.store = options_.images, .agent_socket = options_.agent_socket}, version.id));
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0660));
  if (!file || ::ftruncate(file.get(), static_cast<off_t>(state.memory_bytes)) != 0) {
    return fail(Errc::kIo, path.string() + ": " + std::strerror(errno));
  }
  RamWriter writer(*source, file);
  const std::uint64_t pages = state.memory_bytes / kPageSize;
  TRY(source->manifest().walk(
      [](const imagestore::ObjectName&) { return true; },
      [&](std::uint64_t page, const imagestore::PageRef& ref) -> Result<void> {
        return page < pages ? writer.want(page, ref) : Result<void>();
      }));
  TRY(writer.run());
  return writer.bytes();
}

Result<void> TemplateStore::verify(const migrator::ShelvedTemplate& shelved) const {
  const auto store = TRY(open(imagestore::DirOrigin::Access::kRead));
  const TemplateState& state = shelved.state;
  const TemplateState stored = TRY(read_state(*store, image_of(state.name)));
  if (stored.id != state.id) {
    return fail(Errc::kCorrupt, "the store's template " + state.name + " is another one");
  }
  const auto reader = TRY(imagestore::ImageReader::open(*store, image_of(state.name)));
  const Fd file(::open(shelved.ram_file().c_str(), O_RDONLY | O_CLOEXEC));
  constexpr std::size_t kStep = std::size_t{1} << 20U;
  std::vector<std::byte> here(kStep);
  std::vector<std::byte> there(kStep);
  for (std::uint64_t at = 0; at < state.memory_bytes; at += kStep) {
    const auto size =
        static_cast<std::size_t>(std::min<std::uint64_t>(kStep, state.memory_bytes - at));
    const auto stored_bytes = std::span(there).first(size);
    TRY(reader->read(at, stored_bytes));
    const ssize_t got = ::pread(file.get(), here.data(), size, static_cast<off_t>(at));
    if (got != static_cast<ssize_t>(size) || differs(std::span(here).first(size), stored_bytes)) {
      return fail(Errc::kCorrupt, "the RAM file of template " + state.name + " differs at byte " +
                                      std::to_string(at) + " or within 1 MiB behind it");
    }
  }
  return {};
}

Result<void> TemplateStore::remove(const std::string& name) const {
  TRY(migrator::check_template_name(name));
  const auto store = TRY(open(imagestore::DirOrigin::Access::kWrite));
  const auto now = std::chrono::floor<std::chrono::seconds>(clock_.today());
  // Disks that stand on its versions hold them.
  const auto disk = store->catalog().remove(migrator::disk_image_of(name), now);
  if (!disk && disk.error().code() != Errc::kNotFound) return disk;
  return store->catalog().remove(image_of(name), now);
}

}  // namespace samepage::agent
