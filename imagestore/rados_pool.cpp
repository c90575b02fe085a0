#include "imagestore/rados_pool.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <system_error>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kAskedAtOnce = 256;

Errc errc_of(int code) {
  switch (-code) {
    case ENOENT:
      return Errc::kNotFound;
    case ETIMEDOUT:
    case ESHUTDOWN:
    case ENOTCONN:
    case ECONNREFUSED:
    case EAGAIN:
      return Errc::kUnavailable;
    case EACCES:
    case EPERM:
      return Errc::kInvalid;
    default:
      return Errc::kIo;
  }
}

std::string text_of(int code) {
  if (code == -ENOSPC || code == -EDQUOT) return "the pool is full";
  if (code == -ETIMEDOUT) return "the Ceph cluster does not answer";
  return std::generic_category().message(-code);
}

Error refused(const std::string& what, int code) {
  return {errc_of(code), what + ": " + text_of(code)};
}

}  // namespace

RadosChange::RadosChange(const RadosLibrary& rados)
    : rados_(&rados), change_(rados.create_write_op()) {}

RadosChange::RadosChange(RadosChange&& other) noexcept
    : rados_(other.rados_), change_(std::exchange(other.change_, nullptr)) {}

RadosChange::~RadosChange() {
  if (change_ != nullptr) rados_->release_write_op(change_);
}

RadosChange& RadosChange::expect_absent() {
  rados_->write_op_create(change_, LIBRADOS_CREATE_EXCLUSIVE, nullptr);
  return *this;
}

RadosChange& RadosChange::expect_present() {
  rados_->write_op_assert_exists(change_);
  return *this;
}

RadosChange& RadosChange::expect_attribute(const char* name, std::string_view value) {
  rados_->write_op_cmpxattr(change_, name, LIBRADOS_CMPXATTR_OP_EQ, value.data(), value.size());
  return *this;
}

RadosChange& RadosChange::expect_attribute(const char* name, std::string_view first,
                                           std::string_view last) {
  // The operator stands between the value and the attribute, in this order.
  rados_->write_op_cmpxattr(change_, name, LIBRADOS_CMPXATTR_OP_LTE, first.data(), first.size());
  rados_->write_op_cmpxattr(change_, name, LIBRADOS_CMPXATTR_OP_GTE, last.data(), last.size());
  return *this;
}

RadosChange& RadosChange::write(std::span<const std::byte> bytes) {
  rados_->write_op_write_full(change_, reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return *this;
}

RadosChange& RadosChange::set_attribute(const char* name, std::string_view value) {
  rados_->write_op_setxattr(change_, name, value.data(), value.size());
  return *this;
}

RadosChange& RadosChange::remove() {
  rados_->write_op_remove(change_);
  return *this;
}

RadosPending::~RadosPending() {
  if (completion_ != nullptr) rados_->aio_release(completion_);
}

int RadosPending::wait() {
  rados_->aio_wait_for_complete(completion_);
  return rados_->aio_get_return_value(completion_);
}

/// A connection; its threads are Ceph's.
class RadosPool::Cluster {
 public:
  Cluster(const RadosLibrary& rados, rados_t cluster) : rados_(rados), cluster_(cluster) {}
  ~Cluster() { rados_.shutdown(cluster_); }
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  rados_t get() const { return cluster_; }
  rados_config_t context() const { return rados_.cct(cluster_); }

 private:
  const RadosLibrary& rados_;
  rados_t cluster_;
};

Result<std::shared_ptr<RadosPool::Cluster>> RadosPool::connect(const Options& options) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<Cluster>> connected;
  const RadosLibrary& rados = *TRY(RadosLibrary::load());
  const std::lock_guard lock(mutex);
  const std::string seconds = std::to_string(options.operation_seconds_max);
  auto& known = connected[options.conf.string() + " " + seconds];
  if (auto shared = known.lock()) return shared;

  rados_t raw = nullptr;
  if (const int code = rados.create(&raw, nullptr); code < 0) {
    return tl::unexpected(refused("set up librados", code));
  }
  auto cluster = std::make_shared<Cluster>(rados, raw);
  if (const int code = rados.conf_read_file(raw, options.conf.c_str()); code < 0) {
    return fail(Errc::kInvalid,
                options.conf.string() + ": " + text_of(code) + "; it names the cluster's monitors");
  }
  for (const char* limit :
       {"client_mount_timeout", "rados_osd_op_timeout", "rados_mon_op_timeout"}) {
    rados.conf_set(raw, limit, seconds.c_str());
  }
  if (const int code = rados.connect(raw); code < 0) {
    return tl::unexpected(refused("connect to the Ceph cluster of " + options.conf.string(), code));
  }
  TRY(load_ceph_sqlite(cluster->context()));
  known = cluster;
  return cluster;
}

Result<std::unique_ptr<RadosPool>> RadosPool::open(const Options& options) {
  auto cluster = TRY(connect(options));
  const RadosLibrary& rados = *TRY(RadosLibrary::load());
  rados_ioctx_t ioctx = nullptr;
  const int code = rados.ioctx_create(cluster->get(), options.pool.c_str(), &ioctx);
  if (code < 0) return tl::unexpected(refused("Ceph pool " + options.pool, code));
  rados.ioctx_set_namespace(ioctx, options.name_space.c_str());
  return std::unique_ptr<RadosPool>(new RadosPool(rados, std::move(cluster), ioctx, options.pool));
}

RadosPool::RadosPool(const RadosLibrary& rados, std::shared_ptr<Cluster> cluster,
                     rados_ioctx_t ioctx, std::string name)
    : rados_(rados), cluster_(std::move(cluster)), ioctx_(ioctx), name_(std::move(name)) {}

RadosPool::~RadosPool() {
  rados_.ioctx_destroy(ioctx_);
}

rados_config_t RadosPool::context() const {
  return cluster_->context();
}

Error RadosPool::error(const std::string& what, int code) const {
  return refused("pool " + name_ + ": " + what, code);
}

RadosPending RadosPool::start(const std::string& object, RadosChange change) {
  rados_completion_t completion = nullptr;
  CHECK(rados_.aio_create_completion2(nullptr, nullptr, &completion) == 0);
  const int code = rados_.aio_write_op_operate(change.change_, ioctx_, completion, object.c_str(),
                                               nullptr, LIBRADOS_OPERATION_NOFLAG);
  CHECK(code == 0);  // Only malformed changes are refused here.
  return {rados_, completion};
}

Result<std::vector<std::byte>> RadosPool::read(const std::string& object, std::size_t bytes_max) {
  std::vector<std::byte> bytes(bytes_max + 1);
  const int got =
      rados_.read(ioctx_, object.c_str(), reinterpret_cast<char*>(bytes.data()), bytes.size(), 0);
  if (got < 0) return tl::unexpected(error("read " + object, got));
  if (static_cast<std::size_t>(got) > bytes_max) {
    return fail(Errc::kCorrupt, "object " + object + " is larger than any of ours");
  }
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

Result<std::uint64_t> RadosPool::size(const std::string& object) {
  std::uint64_t bytes = 0;
  time_t changed_at = 0;
  const int code = rados_.stat(ioctx_, object.c_str(), &bytes, &changed_at);
  if (code < 0) return tl::unexpected(error("look at " + object, code));
  return bytes;
}

namespace {

/// One object's size and attributes being asked for; librados writes into it.
struct Question {
  explicit Question(const RadosLibrary& library)
      : rados(library), question(library.create_read_op()) {}
  ~Question() {
    if (attributes != nullptr) rados.getxattrs_end(attributes);
    rados.release_read_op(question);
  }
  Question(const Question&) = delete;
  Question& operator=(const Question&) = delete;

  std::string find(std::string_view wanted) {
    const char* name = nullptr;
    const char* value = nullptr;
    std::size_t size = 0;
    while (rados.getxattrs_next(attributes, &name, &value, &size) == 0 && name != nullptr) {
      if (wanted == name) return {value, size};
    }
    return {};
  }

  const RadosLibrary& rados;
  rados_read_op_t question;
  std::optional<RadosPending> pending;
  rados_xattrs_iter_t attributes = nullptr;
  std::uint64_t bytes = 0;
  time_t changed_at = 0;
  int stat_code = 0;
  int attributes_code = 0;
};

}  // namespace

Result<std::vector<std::optional<RadosPool::Facts>>> RadosPool::describe(
    std::span<const std::string> objects, const char* attribute) {
  std::vector<std::optional<Facts>> all;
  while (!objects.empty()) {
    const auto batch = objects.first(std::min(objects.size(), kAskedAtOnce));
    objects = objects.subspan(batch.size());
    std::vector<std::unique_ptr<Question>> questions;
    for (const std::string& object : batch) {
      Question& asked = *questions.emplace_back(std::make_unique<Question>(rados_));
      rados_.read_op_stat(asked.question, &asked.bytes, &asked.changed_at, &asked.stat_code);
      rados_.read_op_getxattrs(asked.question, &asked.attributes, &asked.attributes_code);
      rados_completion_t completion = nullptr;
      CHECK(rados_.aio_create_completion2(nullptr, nullptr, &completion) == 0);
      asked.pending.emplace(rados_, completion);
      CHECK(rados_.aio_read_op_operate(asked.question, ioctx_, completion, object.c_str(), 0) == 0);
    }
    int failed = 0;
    for (const auto& asked : questions) {
      const int code = asked->pending->wait();
      if (code == 0) {
        all.push_back(Facts{.bytes = asked->bytes, .attribute = asked->find(attribute)});
      } else {
        all.emplace_back();
        if (code != -ENOENT) failed = code;
      }
    }
    if (failed != 0) return tl::unexpected(error("look at objects", failed));
  }
  return all;
}

Result<void> RadosPool::list(const std::function<Result<void>(std::string)>& visit) {
  rados_list_ctx_t listing = nullptr;
  if (const int code = rados_.nobjects_list_open(ioctx_, &listing); code < 0) {
    return tl::unexpected(error("list", code));
  }
  Result<void> visited;
  while (visited) {
    const char* object = nullptr;
    const int code = rados_.nobjects_list_next(listing, &object, nullptr, nullptr);
    if (code == -ENOENT) break;
    visited = code < 0 ? tl::unexpected(error("list", code)) : visit(object);
  }
  rados_.nobjects_list_close(listing);
  return visited;
}

}  // namespace samepage::imagestore
