#pragma once

#include <string>

#include "core/bus.h"

namespace samepage::agent {

/// Where pressure files (PSI) of the guests are: the folder that was asked for; libvirt's slice
/// when there is one; else those of the whole host. Empty when `asked` is "none" or the kernel has
/// none.
std::string pressure_folder(const std::string& asked);

/// Reads how much of the last 10 s some task waited. What cannot be read is left at zero.
void put_pressure(const std::string& folder, bus::HostReport& report);

/// "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz"; empty when the kernel does not say.
std::string processor_model();

}  // namespace samepage::agent
