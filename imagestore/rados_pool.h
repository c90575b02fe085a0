#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"
#include "imagestore/rados_library.h"

namespace samepage::imagestore {

/// A change of one RADOS object, which takes effect as a whole or, when a condition does not hold,
/// not at all. Built, then given to RadosPool once.
class RadosChange {
 public:
  explicit RadosChange(const RadosLibrary& rados);
  ~RadosChange();
  RadosChange(RadosChange&& other) noexcept;
  RadosChange& operator=(RadosChange&&) = delete;
  RadosChange(const RadosChange&) = delete;
  RadosChange& operator=(const RadosChange&) = delete;

  // Conditions. EEXIST, ENOENT and ECANCELED say which did not hold.
  RadosChange& expect_absent();
  RadosChange& expect_present();
  /// Compares as text: the attribute is `value`, or between the two, both included.
  RadosChange& expect_attribute(const char* name, std::string_view value);
  RadosChange& expect_attribute(const char* name, std::string_view first, std::string_view last);

  // What happens.
  RadosChange& write(std::span<const std::byte> bytes);
  RadosChange& set_attribute(const char* name, std::string_view value);
  RadosChange& remove();

 private:
  friend class RadosPool;
  const RadosLibrary* rados_;
  rados_write_op_t change_;
};

/// A change under way: durable on every replica, or refused, once wait() returns.
class RadosPending {
 public:
  RadosPending(const RadosLibrary& rados, rados_completion_t completion)
      : rados_(&rados), completion_(completion) {}
  ~RadosPending();
  RadosPending(RadosPending&& other) noexcept
      : rados_(other.rados_), completion_(std::exchange(other.completion_, nullptr)) {}
  RadosPending& operator=(RadosPending&&) = delete;
  RadosPending(const RadosPending&) = delete;
  RadosPending& operator=(const RadosPending&) = delete;

  /// 0, or errno negated.
  int wait();

 private:
  const RadosLibrary* rados_;
  rados_completion_t completion_;
};

/// A namespace of a Ceph pool. Connections to a cluster are shared by all pools of a process.
///
/// Every operation ends within operation_max, however dead the cluster is.
/// Threads: one at a time; a pool object per thread. Lifetime: wait for what is under way first.
class RadosPool final {
 public:
  struct Options {
    std::filesystem::path conf;
    std::string pool;
    std::string name_space;
    int operation_seconds_max = 30;
  };

  /// kUnavailable: the cluster does not answer, or librados is not installed. kInvalid: the
  /// configuration cannot be read, or says how to log in wrongly. kNotFound: no such pool.
  static Result<std::unique_ptr<RadosPool>> open(const Options& options);
  ~RadosPool();
  RadosPool(const RadosPool&) = delete;
  RadosPool& operator=(const RadosPool&) = delete;

  RadosChange change() const { return RadosChange(rados_); }
  RadosPending start(const std::string& object, RadosChange change);

  /// The bytes of an object of at most `bytes_max`. kNotFound: no such object. kCorrupt: larger.
  Result<std::vector<std::byte>> read(const std::string& object, std::size_t bytes_max);

  /// kNotFound: no such object.
  Result<std::uint64_t> size(const std::string& object);

  struct Facts {
    std::uint64_t bytes = 0;
    std::string attribute;
  };

  /// Size and one attribute of each object, in the order of the names; none where there is no such
  /// object. Asks for many at once.
  Result<std::vector<std::optional<Facts>>> describe(std::span<const std::string> objects,
                                                     const char* attribute);

  /// Calls `visit` for the names of all objects, until it fails.
  Result<void> list(const std::function<Result<void>(std::string)>& visit);

  /// For an errno, negated: kNotFound, kUnavailable (the cluster is away, or full), or kIo.
  Error error(const std::string& what, int code) const;

  /// What libcephsqlite needs.
  rados_config_t context() const;

 private:
  class Cluster;
  RadosPool(const RadosLibrary& rados, std::shared_ptr<Cluster> cluster, rados_ioctx_t ioctx,
            std::string name);
  static Result<std::shared_ptr<Cluster>> connect(const Options& options);

  const RadosLibrary& rados_;
  std::shared_ptr<Cluster> cluster_;
  rados_ioctx_t ioctx_;
  std::string name_;
};

}  // namespace samepage::imagestore
