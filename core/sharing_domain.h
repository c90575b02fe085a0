#pragma once

#include <string>

#include "core/page_digest.h"
#include "core/page_hash.h"

namespace samepage {

/// The trust boundary of every kind of sharing (a tenant; by default one called `default`). Pages
/// of two VMs are compared only inside one domain. The placer makes the secrets and hands them to
/// enrolled agents over the bus; they are never written to a log or to an agent's disk.
struct SharingDomain {
  std::string name = "default";
  HashSeed seed;
  DigestKey key;
};

}  // namespace samepage
