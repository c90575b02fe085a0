#pragma once

#include <map>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "placer/event_log.h"
#include "placer/fleet.h"
#include "placer/journal.h"
#include "placer/roster.h"
#include "placer/sharing_history.h"

namespace samepage::control {

// The JSON objects of docs/api.md. What is not known is null.

/// `public_key`: as enrolled.
nlohmann::json to_json(const placer::Host& host, const placer::Fleet& fleet,
                       const std::string& public_key);
nlohmann::json to_json(const placer::Vm& vm, const placer::Fleet& fleet);

nlohmann::json to_json(const placer::SharingPoint& point);
nlohmann::json to_json(const placer::MemorySample& sample);

/// The whole fleet's predicted and achieved sharing, host by host and pair by pair.
nlohmann::json sharing_json(const placer::Fleet& fleet);
nlohmann::json to_json(const placer::PlanRecord& plan);
nlohmann::json to_json(const placer::Plan& plan);  ///< One that is not stored: it has no id.
nlohmann::json to_json(const placer::Event& event);

}  // namespace samepage::control
