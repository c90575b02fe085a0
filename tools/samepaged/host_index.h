#pragma once

#include <memory>
#include <optional>

#include "core/hypervisor.h"
#include "core/sharing_domain.h"
#include "migrator/template_arrival.h"
#include "pagecache/checkpoint_store.h"
#include "pagecache/image_pages.h"
#include "pagecache/page_cache.h"

namespace samepage::agent {

/// Where pages are on this host, beside its guests' RAM. Borrowed.
struct KeptPages {
  const pagecache::CheckpointStore& checkpoints;
  const pagecache::ImagePages& images;
};

/// The VM that is to arrive, and the template that it was forked from, where that is here.
struct ArrivingVm {
  VmId id;
  std::shared_ptr<const migrator::TemplateArrival> on_template;  ///< May be null.
};

struct HostIndex {
  std::shared_ptr<pagecache::PageCache> pages;
  std::optional<pagecache::SourceId> base;  ///< That lies in memory like the VM: its template.
};

/// An index of every page of one sharing domain that is on this host now: in the checkpoint and the
/// template of the VM that is to arrive, in the guests (those that are arriving included), in other
/// VMs' checkpoints and in disk images. What ends or cannot be read meanwhile is left out.
/// kUnavailable: libvirt cannot be asked.
Result<HostIndex> index_pages(Hypervisor& hypervisor, const KeptPages& kept,
                              const ArrivingVm& arriving, const SharingDomain& domain);

}  // namespace samepage::agent
