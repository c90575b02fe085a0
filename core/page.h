#pragma once

#include <cstddef>
#include <span>

namespace samepage {

/// The unit of everything: guest RAM, disk images and templates are sequences of such pages.
inline constexpr std::size_t kPageSize = 4096;

using PageView = std::span<const std::byte, kPageSize>;
using PageBuffer = std::span<std::byte, kPageSize>;

/// True when every byte is zero. Reads all of a zero page, usually one cache line of any other.
bool is_zero(PageView page);

}  // namespace samepage
