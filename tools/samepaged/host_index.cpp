#include "tools/samepaged/host_index.h"

#include <utility>

#include "core/log.h"
#include "fingerprinter/guest_memory.h"
#include "fingerprinter/page_scanner.h"
#include "pagecache/guest_page_source.h"

namespace samepage::agent {
namespace {

Result<void> index_guest(const VmInfo& vm, HashSeed seed, pagecache::PageCache& index) {
  auto memory = TRY(fingerprinter::open_guest_memory(vm));
  const auto scan = TRY(fingerprinter::scan(*memory, seed));
  index.add(std::make_unique<pagecache::GuestPageSource>(std::move(memory), vm.name), scan.hashed);
  return {};
}

}  // namespace

Result<std::shared_ptr<pagecache::PageCache>> index_pages(Hypervisor& hypervisor,
                                                          const KeptPages& kept,
                                                          const VmId& arriving,
                                                          const SharingDomain& domain) {
  using Which = pagecache::CheckpointStore::Which;
  std::shared_ptr<pagecache::PageCache> index = TRY(pagecache::PageCache::create({}, domain));
  // The index keeps the first few places of a page; those that are cheapest to read come first.
  kept.checkpoints.add_to(*index, domain, arriving, Which::kOfVm);
  for (const VmInfo& vm : TRY(hypervisor.vms())) {
    if (vm.sharing_domain != domain.name) continue;
    const auto done = index_guest(vm, domain.seed, *index);
    if (!done) {
      log_warning("guest left out of the index vm={} why=\"{}\"", vm.name, done.error().message());
    }
  }
  kept.checkpoints.add_to(*index, domain, arriving, Which::kOfOthers);
  kept.images.add_to(*index, domain);
  return index;
}

}  // namespace samepage::agent
