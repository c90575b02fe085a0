#pragma once

#include <memory>
#include <string>

#include "fingerprinter/guest_memory.h"
#include "pagecache/page_source.h"

namespace samepage::pagecache {

/// A running guest's RAM as a source of pages, by the page numbers of its GuestMemory. Shares the
/// GuestMemory with whoever scans it; reads say kNotFound once the guest is gone.
class GuestPageSource final : public PageSource {
 public:
  GuestPageSource(std::shared_ptr<fingerprinter::GuestMemory> memory, std::string vm_name);

  Result<void> read(std::uint64_t page, PageBuffer destination) override;
  Result<void> read_many(std::span<const std::uint64_t> pages,
                         std::span<std::byte> destination) override;
  std::string name() const override { return "guest " + vm_name_; }

 private:
  std::shared_ptr<fingerprinter::GuestMemory> memory_;
  std::string vm_name_;
};

}  // namespace samepage::pagecache
