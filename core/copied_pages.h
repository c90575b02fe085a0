#pragma once

#include <cstddef>
#include <span>

#include "core/page_digest.h"

namespace samepage {

/// As digest_pages(), and copies the pages, which others may write to meanwhile: the digests are
/// those of the copy. Costs little more than digesting alone, where the vector unit is wide enough.
/// `to` is aligned to 64 bytes.
void copy_and_digest_pages(std::span<const std::byte> from, std::span<std::byte> to,
                           const DigestKey& key, std::span<PageDigest> digests);

}  // namespace samepage
