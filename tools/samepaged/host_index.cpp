#include "tools/samepaged/host_index.h"

#include <utility>

#include "core/log.h"
#include "fingerprinter/guest_memory.h"
#include "fingerprinter/page_scanner.h"
#include "fingerprinter/ram_file.h"
#include "pagecache/guest_page_source.h"

namespace samepage::agent {
namespace {

Result<void> index_guest(const VmInfo& vm, HashSeed seed, pagecache::PageCache& index) {
  auto memory = TRY(fingerprinter::open_guest_memory(vm));
  const auto scan = TRY(fingerprinter::scan(*memory, seed));
  index.add(std::make_unique<pagecache::GuestPageSource>(std::move(memory), vm.name), scan.hashed);
  return {};
}

Result<pagecache::SourceId> index_template(const migrator::ShelvedTemplate& shelved, HashSeed seed,
                                           pagecache::PageCache& index) {
  auto memory = TRY(fingerprinter::open_ram_file(shelved.ram_file()));
  const auto scan = TRY(fingerprinter::scan(*memory, seed));
  return index.add(std::make_unique<pagecache::GuestPageSource>(std::move(memory),
                                                                "template " + shelved.state.name),
                   scan.hashed);
}

}  // namespace

Result<HostIndex> index_pages(Hypervisor& hypervisor, const KeptPages& kept,
                              const ArrivingVm& arriving, const SharingDomain& domain) {
  using Which = pagecache::CheckpointStore::Which;
  HostIndex index{.pages = TRY(pagecache::PageCache::create({}, domain)), .base = {}};
  // The index keeps the first few places of a page; those that are cheapest to read come first.
  if (arriving.on_template != nullptr) {
    const auto added = index_template(arriving.on_template->shelved(), domain.seed, *index.pages);
    if (added) index.base = *added;
  }
  kept.checkpoints.add_to(*index.pages, domain, arriving.id, Which::kOfVm);
  for (const VmInfo& vm : TRY(hypervisor.vms())) {
    if (vm.sharing_domain != domain.name) continue;
    const auto done = index_guest(vm, domain.seed, *index.pages);
    if (!done) {
      log_warning("guest left out of the index vm={} why=\"{}\"", vm.name, done.error().message());
    }
  }
  kept.checkpoints.add_to(*index.pages, domain, arriving.id, Which::kOfOthers);
  kept.images.add_to(*index.pages, domain);
  return index;
}

}  // namespace samepage::agent
