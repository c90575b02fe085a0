#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "placer/arrangement.h"
#include "placer/gain.h"

namespace samepage::placer {

// Sentences about moves, for people. All speak of the arrangement as it is, before the move.

std::string mib_text(double pages);  ///< "61 MiB", "0.4 MiB"
std::string age_text(std::chrono::milliseconds age);

/// What speaks for moving a VM, or several together, to a host.
std::string why_moved(const Arrangement& arrangement, const Unit& unit, std::uint32_t target);
std::string why_swapped(const Arrangement& arrangement, const Unit& unit, const Unit& other);

/// What speaks against the best other place.
std::string why_not_there(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
                          const Gain& gain, const ImproveOptions& options);

/// The same in one of the words that Stay lists.
std::string cause_not_there(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
                            const Gain& gain, const ImproveOptions& options);

}  // namespace samepage::placer
