#pragma once

#include <memory>

#include "core/hypervisor.h"
#include "core/sharing_domain.h"
#include "pagecache/checkpoint_store.h"
#include "pagecache/image_pages.h"
#include "pagecache/page_cache.h"

namespace samepage::agent {

/// Where pages are on this host, beside its guests' RAM. Borrowed.
struct KeptPages {
  const pagecache::CheckpointStore& checkpoints;
  const pagecache::ImagePages& images;
};

/// An index of every page of one sharing domain that is on this host now: in the checkpoint of the
/// VM that is to arrive, in the guests (those that are arriving included), in other VMs'
/// checkpoints and in disk images. A guest that ends or cannot be read meanwhile is left out.
/// kUnavailable: libvirt cannot be asked.
Result<std::shared_ptr<pagecache::PageCache>> index_pages(Hypervisor& hypervisor,
                                                          const KeptPages& kept,
                                                          const VmId& arriving,
                                                          const SharingDomain& domain);

}  // namespace samepage::agent
