#include "tools/samepaged/vm_disks.h"

namespace samepage::agent {

Result<void> VmDisks::expect_none(const std::string& vm) {
  const auto there = disks_.find(vm);
  if (there) {
    return fail(Errc::kInvalid, "a disk " + vm +
                                    " is left from an earlier VM: keep it and choose another "
                                    "name, or `samepage disk rm " +
                                    vm + "`, or boot with --replace-disks");
  }
  if (there.error().code() == Errc::kNotFound) return {};
  return tl::unexpected(there.error());
}

Result<VmDisks::Disk> VmDisks::make(const std::string& vm, const std::string& image,
                                    std::uint64_t version) {
  const auto made = TRY(disks_.create({.name = vm, .image = image, .number = version, .vm = vm}));
  return Disk{.socket = made.socket(), .element = disks_.xml(vm, "vda"), .version = made.number()};
}

Result<std::uint64_t> VmDisks::freeze(const std::string& vm, const std::string& image) {
  return TRY(disks_.commit(vm, image, false)).number();
}

Result<void> VmDisks::discard(const std::string& vm) {
  const auto removed = disks_.remove(vm);
  if (!removed && removed.error().code() == Errc::kNotFound) return {};
  return removed;
}

}  // namespace samepage::agent
