#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "placer/scene.h"

namespace samepage::placer {

/// What each VM of a scene uses on each of its hosts, by the scene's class models: as measured on
/// hosts of the class where it is, as the model says on those of another class, and as measured
/// where there is no model for the two classes. A load is never below 0.
///
/// Threads: const methods may run at the same time. Lifetime: borrows the scene, which must not
/// change.
class ClassCosts {
 public:
  explicit ClassCosts(const Scene& scene);

  bool any() const { return !models_.empty(); }

  /// Of a VM that is on no host: as the scene has it.
  Loads on(std::uint32_t vm, std::uint32_t host) const;

  /// By resource, the most or least that it uses on any host of the scene.
  Loads most(std::uint32_t vm) const;
  Loads least(std::uint32_t vm) const;

  /// What is counted differently on this host, and by which model, as a part of a sentence; empty
  /// when nothing is.
  std::string describe(std::uint32_t vm, std::uint32_t host) const;

 private:
  using Classes = std::pair<std::uint32_t, std::uint32_t>;

  Loads in_class(std::uint32_t vm, std::uint32_t target) const;
  template <class Choose>
  Loads over_classes(std::uint32_t vm, Choose choose) const;

  const Scene* scene_;
  std::vector<std::uint32_t> class_of_;  // By host.
  std::uint32_t classes_ = 0;
  std::map<Classes, std::vector<const ClassModel*>> models_;  // From and to.
};

}  // namespace samepage::placer
