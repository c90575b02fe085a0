#pragma once

#include <optional>

#include "core/hypervisor.h"
#include "migrator/control_forwarder.h"
#include "migrator/guest_watch.h"
#include "migrator/source_state.h"

namespace samepage::migrator {

/// What is known at the source when libvirt gave a migration up and nothing passes any more.
struct GivenUp {
  VmId vm;
  bool may_be_halved = false;  ///< It was to be post-copy.
  bool let_finish = false;     ///< The target's libvirt may have been told to finish.
  std::optional<Error> why;    ///< libvirt's word, if it has answered.
};

/// Whose the guest is then. One that is certainly the source's is kept running, as its owner had
/// it. `control` has been stopped. May ask the hypervisor. Threads: any.
Owner find_owner(const GivenUp& given_up, const ControlForwarder& control, const GuestWatch& guest,
                 Hypervisor& hypervisor);

}  // namespace samepage::migrator
