#include "fingerprinter/ram_image.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kGib = 1U << 30U;
constexpr std::uint64_t kHighStart = 4 * kGib;
// pc_init1() of QEMU: RAM of 3.5 GiB and more is split at 3 GiB.
constexpr std::uint64_t kLowBytesMax = 7 * kGib / 2;
constexpr std::uint64_t kSplit = 3 * kGib;

}  // namespace

RamImage::RamImage(std::span<const std::byte> bytes)
    : bytes_(bytes), low_bytes_(bytes.size() < kLowBytesMax ? bytes.size() : kSplit) {
  CHECK(!bytes.empty());
  CHECK(bytes.size() % kPageSize == 0);
}

Result<RamImage> RamImage::map(const Fd& file) {
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  if (size < 0) return fail(Errc::kIo, std::generic_category().message(errno));
  if (size == 0 || size % off_t{kPageSize} != 0) {
    return fail(Errc::kInvalid, "not a raw RAM image: its size is no multiple of 4096");
  }
  const auto bytes = static_cast<std::size_t>(size);
  void* const at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.get(), 0);
  if (at == MAP_FAILED) return fail(Errc::kIo, std::generic_category().message(errno));
  RamImage image(std::span(static_cast<const std::byte*>(at), bytes));
  image.is_mapped_ = true;
  return image;
}

RamImage::RamImage(RamImage&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      low_bytes_(other.low_bytes_),
      is_mapped_(std::exchange(other.is_mapped_, false)) {}

RamImage& RamImage::operator=(RamImage&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(low_bytes_, other.low_bytes_);
  std::swap(is_mapped_, other.is_mapped_);
  return *this;
}

RamImage::~RamImage() {
  // munmap() takes what mmap() gave, whose bytes nobody here ever changed.
  if (is_mapped_) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::uint64_t RamImage::frame_of(std::size_t index) const {
  const std::uint64_t offset = index * kPageSize;
  return (offset < low_bytes_ ? offset : offset - low_bytes_ + kHighStart) / kPageSize;
}

std::optional<std::size_t> RamImage::offset_of(std::uint64_t physical) const {
  if (physical < low_bytes_) return physical;
  if (physical < kHighStart) return std::nullopt;
  const std::uint64_t offset = physical - kHighStart + low_bytes_;
  if (offset >= bytes_.size()) return std::nullopt;
  return offset;
}

}  // namespace samepage::fingerprinter
