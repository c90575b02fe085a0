#pragma once

#include <array>
#include <cstddef>

#include "core/page_digest.h"

namespace samepage::migrator {

/// The secret of one migration, which the placer hands to both agents over the bus. It is never
/// used as a key itself: each use has a key of its own, which says nothing about the others.
struct SessionSecret {
  std::array<std::byte, 32> bytes{};
};

/// For the MAC over QEMU's stream, see "Nothing unverified reaches QEMU" in docs/design-notes.md.
DigestKey stream_mac_key(const SessionSecret& secret);

/// TLS 1.3's pre-shared key, with which the two agents know each other.
DigestKey tls_pre_shared_key(const SessionSecret& secret);

}  // namespace samepage::migrator
