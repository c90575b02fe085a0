#include "migrator/template_arrival.h"

#include <system_error>

#include "fingerprinter/guest_process.h"
#include "fingerprinter/own_pages.h"
#include "fingerprinter/ram_file.h"
#include "migrator/domain_xml.h"
#include "migrator/guest_watch.h"

namespace samepage::migrator {
namespace {

Result<void> check_fit(const ShelvedTemplate& shelved, const TemplateArrival::Guest& guest) {
  std::error_code error;
  const std::uint64_t bytes = std::filesystem::file_size(shelved.ram_file(), error);
  if (error) return fail(Errc::kIo, shelved.ram_file().string() + ": " + error.message());
  if (bytes < guest.memory_bytes || bytes - guest.memory_bytes >= fingerprinter::kRamBytesMore) {
    return fail(Errc::kInvalid, "the VM's memory is not of its template's size");
  }
  const DomainSummary leader = TRY(summarize_domain(shelved.state.leader.xml));
  if (leader.sharing_domain != guest.sharing_domain) {
    return fail(Errc::kInvalid, "the VM and its template are of different sharing domains");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<TemplateArrival>> TemplateArrival::expect(TemplateShelf& shelf,
                                                                 const Guest& guest) {
  TRY(check_vm_id(guest.vm));
  auto shelved = TRY(shelf.find(guest.template_id));
  TRY(check_fit(*shelved, guest));
  TRY(shelf.lay_ticket(*shelved, guest.vm));
  return std::unique_ptr<TemplateArrival>(new TemplateArrival(shelf, std::move(shelved), guest.vm));
}

TemplateArrival::~TemplateArrival() {
  end();
}

void TemplateArrival::end() const {
  shelf_.take_ticket_back(vm_);
}

Result<std::unique_ptr<TemplateSieve>> TemplateArrival::sieve(Hypervisor& hypervisor) const {
  if (shelf_.take_ticket_back(vm_)) {
    return fail(Errc::kInvalid,
                "libvirt did not call Samepage's hook: run `samepage doctor --fix` on this host "
                "and restart libvirtd");
  }
  const VmInfo vm = TRY(find_vm(hypervisor, vm_));
  TemplateSieve::Template mapped{
      .ram = TRY(fingerprinter::open_ram_file(shelved_->ram_file())),
      .block = shelved_->state.ram_block,
      .written = TRY(fingerprinter::own_pages(vm, shelved_->ram_file()))};
  if (mapped.ram->pages() != mapped.written.size()) {
    return fail(Errc::kInvalid, "the template's RAM file changed its size");
  }
  return std::make_unique<TemplateSieve>(std::move(mapped));
}

}  // namespace samepage::migrator
