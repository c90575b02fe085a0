#pragma once

#include <span>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "core/result.h"
#include "tools/samepage/divergence.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// As tables: how alike over time, what differs, why, by name at most `names_max`, and what each
/// setting gains.
void print_divergence(std::span<const DivergenceSet> sets, std::size_t names_max, Session& session);

nlohmann::json divergence_json(std::span<const DivergenceSet> sets, std::size_t names_max);

/// As a picture (SVG 1.1, no scripts, no fonts of its own): over time, what of a boot's memory
/// another boot has at the same address, elsewhere and nowhere, a row for each set; and beside it
/// what the different pages are at the last moment.
std::string divergence_plot(std::span<const DivergenceSet> sets);

/// Writes it; a file that is there is replaced as a whole. kIo: it cannot be written.
Result<void> write_divergence_plot(std::span<const DivergenceSet> sets, const std::string& path);

}  // namespace samepage::cli
