#pragma once

#include <optional>
#include <string>

#include "core/hypervisor.h"

namespace samepage::agent {

/// The VM with this name, its file systems frozen for as long as this lives; or why they are not.
class FrozenGuest {
 public:
  FrozenGuest(Hypervisor& hypervisor, const std::string& name);
  ~FrozenGuest() { thaw(); }
  FrozenGuest(const FrozenGuest&) = delete;
  FrozenGuest& operator=(const FrozenGuest&) = delete;

  void thaw();
  bool is_frozen() const { return vm_.has_value(); }

  /// Why nothing is frozen.
  const std::string& note() const { return note_; }

 private:
  Hypervisor& hypervisor_;
  std::optional<VmId> vm_;
  std::string note_;
};

}  // namespace samepage::agent
