#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "imagestore/dir_origin.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// An Origin in a Ceph pool: every object is one RADOS object, called by the name's hexadecimal
/// digits, that holds a record as packs do (docs/formats/imagestore.md).
///
/// Invariant: what an object is and whether it is buried are in the object itself, and every step
/// is one change of one object that Ceph does as a whole or not at all, under a condition that Ceph
/// checks; so any number of writers on any number of hosts need no lock, and one that is killed
/// leaves at most objects that no version names, which `samepage image gc` finds.
///
/// Unlike a folder's, an object can be seen by others before its writer's sync(): they may build on
/// it once they have kept it, and its writer's discard() leaves it alone from then on. An object
/// that leads to others is held back until those are there.
///
/// Many puts are under way at once. Durability and redundancy are the pool's.
class RadosOrigin final : public Origin {
 public:
  struct Options {
    std::string pool;
    std::string name_space = "samepage";
    std::filesystem::path conf = "/etc/ceph/ceph.conf";
    DirOrigin::Access access = DirOrigin::Access::kRead;
    int operation_seconds_max = 30;
  };

  /// Errors as RadosPool::open().
  static Result<std::unique_ptr<RadosOrigin>> open(const Options& options);

  ~RadosOrigin() override;
  RadosOrigin(const RadosOrigin&) = delete;
  RadosOrigin& operator=(const RadosOrigin&) = delete;

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes) override;
  Result<void> keep(const ObjectName& name) override;
  Result<void> sync() override;
  Result<void> discard() override;
  Result<std::vector<std::byte>> get(const ObjectName& name) override;
  Result<bool> contains(const ObjectName& name) override;
  Result<void> list(const Visit& visit) override;
  Result<void> bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) override;
  Result<SweepReport> sweep(std::span<const ObjectName> names,
                            std::chrono::sys_seconds until) override;
  std::string place(const ObjectName& name) override;

 private:
  class Impl;
  explicit RadosOrigin(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::imagestore
