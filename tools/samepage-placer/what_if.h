#pragma once

#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "core/result.h"
#include "placer/fleet.h"

namespace samepage::control {

/// What the hosts would share if VMs were elsewhere, from fingerprints alone: no host is asked.
/// `moves` is a list "VM=HOST,VM=HOST,..."; a VM is named as in Fleet::named(). The answer is
/// WhatIf of docs/api.md. kInvalid: no such list, or a name that means several VMs. kNotFound: no
/// such VM or host.
Result<nlohmann::json> what_if_json(placer::Fleet fleet, std::string_view moves);

}  // namespace samepage::control
