#pragma once

#include <filesystem>

#include "core/page_digest.h"
#include "core/result.h"

namespace samepage::imagestore {

/// Reads the 32 secret bytes of a key file. kNotFound: no such file. kInvalid: others than its
/// owner may read or write it, or it has another size.
Result<DigestKey> read_key_file(const std::filesystem::path& path);

/// Makes a key file of fresh random bytes, durable, for its owner only, unless there is one by
/// now; returns what the file holds.
Result<DigestKey> create_key_file(const std::filesystem::path& path);

}  // namespace samepage::imagestore
