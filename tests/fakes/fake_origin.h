#pragma once

#include <map>
#include <vector>

#include "imagestore/origin.h"

namespace samepage::imagestore::fakes {

/// An Origin in memory. Tests may damage or remove what it holds.
class FakeOrigin final : public Origin {
 public:
  std::map<ObjectName, std::vector<std::byte>> objects;
  int gets = 0;

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes) override {
    if (bytes.size() > kObjectBytesMax) return fail(Errc::kInvalid, "beyond the limit");
    objects.emplace(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
    return {};
  }
  Result<void> sync() override { return {}; }
  Result<void> discard() override { return {}; }
  Result<std::vector<std::byte>> get(const ObjectName& name) override {
    ++gets;
    const auto found = objects.find(name);
    if (found == objects.end()) return fail(Errc::kNotFound, "not in memory");
    return found->second;
  }
  Result<bool> contains(const ObjectName& name) override { return objects.contains(name); }
  Result<void> list(
      const std::function<Result<void>(const ObjectName&, std::uint64_t)>& visit) override {
    for (const auto& [name, bytes] : objects) TRY(visit(name, bytes.size()));
    return {};
  }
  std::string place(const ObjectName&) override { return "memory"; }
};

}  // namespace samepage::imagestore::fakes
