#include "pagecache/guest_page_source.h"

#include <utility>

namespace samepage::pagecache {

GuestPageSource::GuestPageSource(std::shared_ptr<fingerprinter::GuestMemory> memory,
                                 std::string vm_name)
    : memory_(std::move(memory)), vm_name_(std::move(vm_name)) {}

Result<void> GuestPageSource::read(std::uint64_t page, PageBuffer destination) {
  if (page >= memory_->pages()) return fail(Errc::kNotFound, name() + " has no such page");
  return memory_->read(page, destination);
}

}  // namespace samepage::pagecache
