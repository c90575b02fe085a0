#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/database.h"
#include "core/result.h"
#include "placer/class_model.h"
#include "placer/decision.h"
#include "placer/departures.h"
#include "placer/rules.h"

namespace samepage::placer {

/// What the placer does by itself.
enum class Mode : std::uint8_t {
  kManual,     ///< Nothing.
  kShadow,     ///< Writes down what it would do, and what that would gain.
  kRecommend,  ///< Proposes plans.
  kAutomatic,  ///< Carries them out.
};
std::string_view to_string(Mode mode);           ///< "manual", "shadow", "recommend", "automatic"
Result<Mode> parse_mode(std::string_view text);  ///< kInvalid: the message lists them.

struct Policy {
  Mode mode = Mode::kManual;
  Goal goal = Goal::kMovement;         ///< Of the placer's own plans.
  std::chrono::seconds every{60};      ///< How often it looks, 1 s to a day.
  std::chrono::seconds cooldown{600};  ///< A VM that it moved rests; twice as long after each more.
  MoveLimits limits{.at_once = 4};     ///< Of every plan; each 1 to 64.
};

/// Rules, host labels, overhead models and the policy, in the placer's SQLite file.
/// Threads, lifetime and errors: as Registry.
class PolicyStore {
 public:
  explicit PolicyStore(Database& database) : database_(database) {}

  Result<std::vector<Rule>> rules();  ///< By name.

  /// kInvalid: the rule has no usable name (1 to 63 letters, digits, `-`, `.`, `_`), or names none
  /// of what its kind needs, or more than 1,000 VMs or hosts; or there is a rule of that name.
  Result<void> add(const Rule& rule);
  Result<void> remove(std::string_view name);  ///< kNotFound: no such rule.

  /// These rules instead of all. Errors as add(); nothing was changed then.
  Result<void> replace(const std::vector<Rule>& rules);

  using Labels = std::map<std::string, std::map<std::string, std::string>>;
  Result<Labels> labels();  ///< By host.

  /// An empty value takes the label away. kInvalid: no usable label or value. kNotFound: no such
  /// host is enrolled.
  Result<void> set_label(const std::string& host, const std::string& label,
                         const std::string& value);

  Result<std::vector<ClassModel>> class_models();  ///< By id.

  /// Keeps a model, whose id is chosen here, in the place of one for the same classes and resource.
  /// kInvalid: the classes are the same or have no usable names, a number is not sound, or there
  /// are 1,000 models.
  Result<ClassModel> keep_class_model(ClassModel model);
  Result<void> remove_class_model(std::int64_t id);  ///< kNotFound: no such model.

  Result<Policy> policy();
  Result<void> set_policy(const Policy& policy);

 private:
  Result<void> insert(const Rule& rule);

  Database& database_;
};

}  // namespace samepage::placer
