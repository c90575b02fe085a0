#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "imagestore/origin.h"

namespace samepage::imagestore {

/// An origin for readers of few versions: keeps the manifest nodes that were read last, and counts
/// what is read from the origin behind it. Writes are refused.
///
/// Threads: one at a time. Lifetime: borrows the origin. Memory: `bytes_max`.
class NodeCache final : public Origin {
 public:
  explicit NodeCache(Origin& origin, std::size_t bytes_max = 16U << 20U)
      : origin_(origin), bytes_max_(bytes_max) {}

  struct Counts {
    std::uint64_t objects = 0;
    std::uint64_t bytes = 0;       ///< Of all objects read.
    std::uint64_t node_bytes = 0;  ///< Of these: not of extents.
  };
  const Counts& counts() const { return counts_; }

  Result<std::vector<std::byte>> get(const ObjectName& name) override;
  Result<bool> contains(const ObjectName& name) override { return origin_.contains(name); }
  Result<void> list(const Visit& visit) override { return origin_.list(visit); }
  std::string place(const ObjectName& name) override { return origin_.place(name); }

  Result<void> put(const ObjectName&, std::span<const std::byte>) override { return refuse(); }
  Result<void> keep(const ObjectName&) override { return refuse(); }
  Result<void> sync() override { return refuse(); }
  Result<void> discard() override { return refuse(); }
  Result<void> bury(std::span<const ObjectName>, std::chrono::sys_seconds) override {
    return refuse();
  }
  Result<SweepReport> sweep(std::span<const ObjectName>, std::chrono::sys_seconds) override;

 private:
  using Nodes = std::list<std::pair<ObjectName, std::vector<std::byte>>>;

  static Result<void> refuse();
  void remember(const ObjectName& name, const std::vector<std::byte>& bytes);

  Origin& origin_;
  const std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  Nodes nodes_;  ///< Most recently read first.
  std::unordered_map<ObjectName, Nodes::iterator> by_name_;
  Counts counts_;
};

}  // namespace samepage::imagestore
