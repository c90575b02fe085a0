#include "migrator/page_delta.h"

#include <cstdint>
#include <cstring>

#include "core/byte_reader.h"

namespace samepage::migrator {
namespace {

// Two varints tell of a stretch, so a shorter gap between two is cheaper sent than told.
constexpr std::size_t kGapMin = 4;

std::size_t first_difference(PageView older, PageView newer, std::size_t at) {
  while (at + sizeof(std::uint64_t) <= kPageSize) {
    std::uint64_t one = 0;
    std::uint64_t other = 0;
    std::memcpy(&one, older.data() + at, sizeof(one));
    std::memcpy(&other, newer.data() + at, sizeof(other));
    if (one != other) {
      return at + static_cast<std::size_t>(__builtin_ctzll(one ^ other)) / 8;
    }
    at += sizeof(one);
  }
  while (at < kPageSize && older[at] == newer[at]) ++at;
  return at;
}

/// Where the stretch that begins at `at` ends: behind its last different byte.
std::size_t end_of_stretch(PageView older, PageView newer, std::size_t at) {
  std::size_t end = at + 1;
  for (std::size_t i = end; i < kPageSize && i < end + kGapMin; ++i) {
    if (older[i] != newer[i]) end = i + 1;
  }
  return end;
}

void append_varint(std::size_t value, std::vector<std::byte>& to) {
  for (; value >= 0x80; value >>= 7U) to.push_back(static_cast<std::byte>(value | 0x80U));
  to.push_back(static_cast<std::byte>(value));
}

}  // namespace

bool append_delta(PageView older, PageView newer, std::size_t bytes_max,
                  std::vector<std::byte>& delta) {
  const std::size_t before = delta.size();
  std::size_t done = 0;
  for (;;) {
    const std::size_t begin = first_difference(older, newer, done);
    if (begin == kPageSize) break;
    const std::size_t end = end_of_stretch(older, newer, begin);
    append_varint(end - begin, delta);
    append_varint(begin - done, delta);
    delta.insert(delta.end(), newer.begin() + static_cast<std::ptrdiff_t>(begin),
                 newer.begin() + static_cast<std::ptrdiff_t>(end));
    done = end;
    if (delta.size() - before >= bytes_max) {
      delta.resize(before);
      return false;
    }
  }
  append_varint(0, delta);
  return true;
}

Result<std::span<const std::byte>> apply_delta(std::span<const std::byte> bytes, PageBuffer page) {
  ByteReader reader(bytes);
  std::size_t at = 0;
  for (;;) {
    const auto size = TRY(reader.varint(kPageSize - at));
    if (size == 0) return bytes.last(reader.remaining());
    const auto gap = TRY(reader.varint(kPageSize - at - size));
    const auto stretch = TRY(reader.raw(size));
    at += gap;
    std::memcpy(page.data() + at, stretch.data(), size);
    at += size;
  }
}

}  // namespace samepage::migrator
