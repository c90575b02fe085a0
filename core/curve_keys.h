#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace samepage {

/// An identity on the bus: a CURVE key pair, each key as 64 lower-case hexadecimal digits. The
/// public key is enrolled with the placer, so its text passes through a shell unquoted (ZeroMQ's
/// own Z85 does not); the secret key never leaves its host or a log.
struct CurveKeyPair {
  std::string public_key;
  std::string secret_key;
};

/// kIo: the system gave no randomness.
Result<CurveKeyPair> generate_curve_keys();

/// True for 64 lower-case hexadecimal digits.
bool is_curve_key(std::string_view text);

inline constexpr std::size_t kCurveKeyBytes = 32;

/// A key as ZeroMQ's socket options take it. The text is_curve_key().
std::array<std::uint8_t, kCurveKeyBytes> curve_key_bytes(std::string_view text);

/// A key as people read it.
std::string curve_key_text(std::span<const std::uint8_t, kCurveKeyBytes> key);

/// Writes a new file of mode 0600, whole or not at all, and flushes it to disk.
/// kInvalid: the file exists, it is left alone. kIo: the system refused.
Result<void> save_curve_keys(const CurveKeyPair& keys, const std::string& path);

/// kNotFound: no such file. kInvalid: others than its owner may read it. kCorrupt: it holds no key
/// pair, or its halves do not belong together. kIo: the system refused.
Result<CurveKeyPair> load_curve_keys(const std::string& path);

/// load_curve_keys(), after making the file when there is none: a program's first start.
Result<CurveKeyPair> load_or_make_curve_keys(const std::string& path);

}  // namespace samepage
