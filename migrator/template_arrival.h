#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/hypervisor.h"
#include "core/result.h"
#include "migrator/template_shelf.h"
#include "migrator/template_sieve.h"

namespace samepage::migrator {

/// A VM that comes by migration to a host where the template that it was forked from lies: its QEMU
/// maps the template, by the ticket that a fork gets too, and the stream brings what differs (see
/// "Moving a fork into its template" in docs/design-notes.md).
///
/// Threads: every method may be called from any thread. Lifetime: the shelf outlives it.
class TemplateArrival {
 public:
  struct Guest {
    VmId vm;
    std::string template_id;
    std::string sharing_domain;
    std::uint64_t memory_bytes = 0;
  };

  /// Lays the ticket; so before libvirt prepares the VM here. kNotFound: the template is not on
  /// this host. kInvalid: it is none for this guest. kIo: no ticket can be laid.
  static Result<std::unique_ptr<TemplateArrival>> expect(TemplateShelf& shelf, const Guest& guest);

  /// end().
  ~TemplateArrival();
  TemplateArrival(const TemplateArrival&) = delete;
  TemplateArrival& operator=(const TemplateArrival&) = delete;

  const ShelvedTemplate& shelved() const { return *shelved_; }

  /// For the stream to QEMU, before its first byte. kInvalid: QEMU does not map the template, since
  /// libvirt did not call the hook, say. Whatever the error, the whole stream is as good.
  Result<std::unique_ptr<TemplateSieve>> sieve(Hypervisor& hypervisor) const;

  /// The VM is here, or will not come: takes back a ticket that nobody took. Safe to repeat.
  void end() const;

 private:
  TemplateArrival(TemplateShelf& shelf, std::shared_ptr<const ShelvedTemplate> shelved, VmId vm)
      : shelf_(shelf), shelved_(std::move(shelved)), vm_(std::move(vm)) {}

  TemplateShelf& shelf_;
  const std::shared_ptr<const ShelvedTemplate> shelved_;
  const VmId vm_;
};

}  // namespace samepage::migrator
