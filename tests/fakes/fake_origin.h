#pragma once

#include <map>
#include <utility>
#include <vector>

#include "imagestore/origin.h"

namespace samepage::imagestore::fakes {

/// An Origin in memory. Tests may damage or remove what it holds.
class FakeOrigin final : public Origin {
 public:
  std::map<ObjectName, std::vector<std::byte>> objects;
  std::map<ObjectName, std::chrono::sys_seconds> buried;
  int gets = 0;
  bool swept_kept = false;

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes) override {
    if (bytes.size() > kObjectBytesMax) return fail(Errc::kInvalid, "beyond the limit");
    buried.erase(name);
    objects.emplace(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
    return {};
  }
  Result<void> keep(const ObjectName& name) override {
    buried.erase(name);
    if (!objects.contains(name)) swept_kept = true;
    return {};
  }
  Result<void> sync() override {
    if (!std::exchange(swept_kept, false)) return {};
    return fail(Errc::kUnavailable, "a kept object was swept");
  }
  Result<void> discard() override { return {}; }
  Result<std::vector<std::byte>> get(const ObjectName& name) override {
    ++gets;
    const auto found = objects.find(name);
    if (found == objects.end()) return fail(Errc::kNotFound, "not in memory");
    return found->second;
  }
  Result<bool> contains(const ObjectName& name) override { return objects.contains(name); }
  Result<void> list(const Visit& visit) override {
    for (const auto& [name, bytes] : objects) {
      StoredObject object{.name = name, .stored_bytes = bytes.size()};
      if (const auto at = buried.find(name); at != buried.end()) object.buried_at = at->second;
      TRY(visit(object));
    }
    return {};
  }
  Result<void> bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) override {
    for (const ObjectName& name : names) {
      if (objects.contains(name)) buried.emplace(name, at);
    }
    return {};
  }
  Result<SweepReport> sweep(std::span<const ObjectName> names,
                            std::chrono::sys_seconds until) override {
    SweepReport report;
    for (const ObjectName& name : names) {
      const auto at = buried.find(name);
      if (at == buried.end() || at->second > until) continue;
      ++report.objects;
      report.bytes += objects[name].size();
      objects.erase(name);
      buried.erase(at);
    }
    return report;
  }
  std::string place(const ObjectName&) override { return "memory"; }
};

}  // namespace samepage::imagestore::fakes
