#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/result.h"

namespace samepage::cli {

/// Runs `read` on the parsed text of a placer's answer. kCorrupt: it is no JSON, or `read` threw
/// because something in it is missing or of another type.
template <class Read>
auto parse(std::string_view text, Read read) -> Result<decltype(read(nlohmann::json()))> {
  try {
    return read(nlohmann::json::parse(text));
  } catch (const std::exception& exception) {
    return fail(Errc::kCorrupt,
                std::string("the placer's answer is not understood: ") + exception.what());
  }
}

// Members that may be absent or null. They throw when a member is of another type.
std::string text(const nlohmann::json& object, const char* key);  ///< Empty when there is none.
std::optional<double> number(const nlohmann::json& object, const char* key);

}  // namespace samepage::cli
