#pragma once

#include <memory>

#include "core/hypervisor.h"
#include "core/sharing_domain.h"
#include "pagecache/page_cache.h"

namespace samepage::agent {

/// An index of every page that this host's guests of one sharing domain hold now. A guest that ends
/// or cannot be read meanwhile is left out. kUnavailable: libvirt cannot be asked.
Result<std::shared_ptr<pagecache::PageCache>> index_guests(Hypervisor& hypervisor,
                                                           const SharingDomain& domain);

}  // namespace samepage::agent
