#include "imagestore/rados_origin.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "imagestore/fabric.h"
#include "imagestore/object_format.h"
#include "imagestore/pack_file.h"
#include "imagestore/rados_pool.h"

namespace samepage::imagestore {
namespace {

using Clock = std::chrono::steady_clock;

// Attributes of an object. Who put it, for as long as nobody else relies on it:
constexpr const char* kWriter = "writer";
// When it was buried, as digits that sort as the times do; empty: it is not.
constexpr const char* kBuried = "buried";

constexpr std::size_t kPutsMax = 256;
constexpr std::size_t kPutBytesMax = 16U << 20U;
constexpr std::size_t kChangesMax = 256;
constexpr std::size_t kNameDigits = 2 * sizeof(ObjectName::bytes);

// Of objects that are held back.
constexpr std::size_t kHeldBytesMax = 64U << 20U;

// An object that was put so long ago may have been buried since.
constexpr auto kFresh = std::chrono::minutes(1);

std::string digits_of(std::chrono::sys_seconds time) {
  return fmt::format("{:012}", std::max<std::int64_t>(time.time_since_epoch().count(), 1));
}

std::optional<std::chrono::sys_seconds> read_time(const std::string& digits) {
  if (digits.empty()) return std::nullopt;
  return std::chrono::sys_seconds(std::chrono::seconds(std::strtoll(digits.c_str(), nullptr, 10)));
}

std::optional<ObjectName> read_name(const std::string& object) {
  if (object.size() != kNameDigits) return std::nullopt;
  ObjectName name;
  for (std::size_t i = 0; i < name.bytes.size(); ++i) {
    const auto value = [](char digit) {
      if (digit >= '0' && digit <= '9') return digit - '0';
      return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
    };
    const int high = value(object[2 * i]);
    const int low = value(object[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    name.bytes.at(i) = static_cast<std::byte>(high * 16 + low);
  }
  return name;
}

}  // namespace

class RadosOrigin::Impl {
 public:
  Impl(Options options, std::unique_ptr<RadosPool> pool, std::string writer)
      : options_(std::move(options)), pool_(std::move(pool)), writer_(std::move(writer)) {}

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes);
  Result<void> keep(const ObjectName& name);
  Result<void> sync();
  Result<void> discard();
  Result<std::vector<std::byte>> get(const ObjectName& name);
  Result<bool> contains(const ObjectName& name);
  Result<void> list(const Visit& visit);
  Result<void> bury(std::span<const ObjectName> names, std::chrono::sys_seconds at);
  Result<SweepReport> sweep(std::span<const ObjectName> names, std::chrono::sys_seconds until);
  std::string place(const ObjectName& name) const;

 private:
  struct Put {
    ObjectName name;
    std::size_t bytes = 0;
    RadosPending pending;
  };
  using MakeChange = std::function<RadosChange(const ObjectName&)>;
  using Ended = std::function<Result<void>(const ObjectName&, int code)>;

  struct Own {
    Clock::time_point put_at;
    bool leads = false;
  };

  Result<void> expect_writable() const;
  Result<void> start_put(const ObjectName& name, std::span<const std::byte> bytes, bool leads);
  Result<void> end_puts(std::size_t left);
  Result<void> keep_all();
  Result<void> settle();
  Result<void> take_back(std::span<const ObjectName> names);
  Result<void> change_all(std::span<const ObjectName> names, const MakeChange& make,
                          const Ended& ended);

  Options options_;
  std::unique_ptr<RadosPool> pool_;
  const std::string writer_;
  std::deque<Put> putting_;
  std::size_t putting_bytes_ = 0;
  std::unordered_map<ObjectName, Own> unsynced_;
  std::unordered_set<ObjectName> kept_;
  std::unordered_map<ObjectName, std::vector<std::byte>> held_;  ///< They lead to others.
  std::size_t held_bytes_ = 0;
};

Result<void> RadosOrigin::Impl::expect_writable() const {
  if (options_.access == DirOrigin::Access::kWrite) return {};
  return fail(Errc::kInvalid, "opened for reading only");
}

Result<void> RadosOrigin::Impl::put(const ObjectName& name, std::span<const std::byte> bytes) {
  TRY(expect_writable());
  if (bytes.size() > kObjectBytesMax) return fail(Errc::kInvalid, "an object beyond the limit");
  if (unsynced_.contains(name) || kept_.contains(name) || held_.contains(name)) return {};
  if (!leads_to_others(bytes)) return start_put(name, bytes, false);
  held_.emplace(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
  held_bytes_ += bytes.size();
  return held_bytes_ < kHeldBytesMax ? Result<void>() : settle();
}

Result<void> RadosOrigin::Impl::start_put(const ObjectName& name, std::span<const std::byte> bytes,
                                          bool leads) {
  RadosChange change = pool_->change();
  change.expect_absent().write(encode_record(name, bytes));
  change.set_attribute(kWriter, writer_).set_attribute(kBuried, "");
  unsynced_.emplace(name, Own{.put_at = Clock::now(), .leads = leads});
  putting_.push_back({.name = name,
                      .bytes = bytes.size(),
                      .pending = pool_->start(to_hex(name), std::move(change))});
  putting_bytes_ += bytes.size();
  while (putting_bytes_ > kPutBytesMax) TRY(end_puts(putting_.size() - 1));
  return end_puts(kPutsMax);
}

/// Waits until at most `left` puts are under way.
Result<void> RadosOrigin::Impl::end_puts(std::size_t left) {
  while (putting_.size() > left) {
    const int code = putting_.front().pending.wait();
    const ObjectName name = putting_.front().name;
    putting_bytes_ -= putting_.front().bytes;
    putting_.pop_front();
    if (code == -EEXIST) {
      unsynced_.erase(name);
      kept_.insert(name);
    } else if (code < 0) {
      return tl::unexpected(pool_->error("write an object", code));
    }
  }
  return {};
}

Result<void> RadosOrigin::Impl::keep(const ObjectName& name) {
  TRY(expect_writable());
  if (!unsynced_.contains(name) && !held_.contains(name)) kept_.insert(name);
  return {};
}

/// Makes one change of each object, many at once.
Result<void> RadosOrigin::Impl::change_all(std::span<const ObjectName> names,
                                           const MakeChange& make, const Ended& ended) {
  std::deque<RadosPending> pending;
  Result<void> result;
  std::size_t waited = 0;
  const auto end_one = [&] {
    const int code = pending.front().wait();
    pending.pop_front();
    const ObjectName& name = names[waited++];
    if (result) result = ended(name, code);
  };
  for (const ObjectName& name : names) {
    if (!result) break;
    pending.push_back(pool_->start(to_hex(name), make(name)));
    if (pending.size() >= kChangesMax) end_one();
  }
  while (!pending.empty()) end_one();
  return result;
}

Result<void> RadosOrigin::Impl::keep_all() {
  std::vector<ObjectName> kept(kept_.begin(), kept_.end());
  for (const auto& [name, own] : unsynced_) {
    if (Clock::now() - own.put_at > kFresh) kept.push_back(name);
  }
  // From here on it is nobody's own, so that whoever put it does not take it back.
  const auto dig_up = [&](const ObjectName&) {
    RadosChange change = pool_->change();
    change.expect_present().set_attribute(kWriter, "").set_attribute(kBuried, "");
    return change;
  };
  return change_all(kept, dig_up, [&](const ObjectName& name, int code) -> Result<void> {
    if (code == -ENOENT) {
      return fail(Errc::kUnavailable, "object " + to_hex(name) +
                                          " was removed by `samepage image gc` meanwhile; try "
                                          "again");
    }
    if (code < 0) return tl::unexpected(pool_->error("keep an object", code));
    return {};
  });
}

/// Stores what was put; what leads to others when those are sure to stay.
Result<void> RadosOrigin::Impl::settle() {
  TRY(end_puts(0));
  TRY(keep_all());
  if (held_.empty()) return {};
  held_bytes_ = 0;
  for (const auto& [name, bytes] : std::exchange(held_, {})) TRY(start_put(name, bytes, true));
  TRY(end_puts(0));
  return keep_all();
}

Result<void> RadosOrigin::Impl::sync() {
  TRY(settle());
  unsynced_.clear();
  kept_.clear();
  return {};
}

Result<void> RadosOrigin::Impl::discard() {
  Result<void> ended = end_puts(0);
  while (!putting_.empty()) ended = end_puts(0);
  std::vector<ObjectName> leading;
  std::vector<ObjectName> others;
  for (const auto& [name, own] : unsynced_) (own.leads ? leading : others).push_back(name);
  unsynced_.clear();
  kept_.clear();
  held_.clear();
  held_bytes_ = 0;
  TRY(take_back(leading));
  return take_back(others);
}

Result<void> RadosOrigin::Impl::take_back(std::span<const ObjectName> names) {
  const auto remove = [&](const ObjectName&) {
    RadosChange change = pool_->change();
    change.expect_attribute(kWriter, writer_).remove();
    return change;
  };
  return change_all(names, remove, [&](const ObjectName&, int code) -> Result<void> {
    if (code < 0 && code != -ENOENT && code != -ECANCELED) {
      return tl::unexpected(pool_->error("take back an object", code));
    }
    return {};
  });
}

Result<std::vector<std::byte>> RadosOrigin::Impl::get(const ObjectName& name) {
  if (const auto held = held_.find(name); held != held_.end()) return held->second;
  if (unsynced_.contains(name)) TRY(end_puts(0));
  const std::size_t bytes_max = PackFile::record_bytes(kObjectBytesMax);
  auto record = pool_->read(to_hex(name), bytes_max);
  if (!record && record.error().code() == Errc::kNotFound) {
    return fail(Errc::kNotFound, "object " + to_hex(name) + " is not in the store");
  }
  auto bytes = decode_record(TRY(std::move(record)), name);
  if (!bytes) return tl::unexpected(std::move(bytes).error().within(place(name)));
  return bytes;
}

Result<bool> RadosOrigin::Impl::contains(const ObjectName& name) {
  if (held_.contains(name)) return true;
  if (unsynced_.contains(name)) TRY(end_puts(0));
  const auto size = pool_->size(to_hex(name));
  if (!size && size.error().code() != Errc::kNotFound) return tl::unexpected(size.error());
  return size.has_value();
}

Result<void> RadosOrigin::Impl::list(const Visit& visit) {
  std::vector<std::string> objects;
  const auto describe = [&]() -> Result<void> {
    const auto facts = TRY(pool_->describe(objects, kBuried));
    for (std::size_t i = 0; i < objects.size(); ++i) {
      if (!facts[i]) continue;  // Swept meanwhile.
      TRY(visit({.name = *read_name(objects[i]),
                 .stored_bytes = facts[i]->bytes,
                 .buried_at = read_time(facts[i]->attribute)}));
    }
    objects.clear();
    return {};
  };
  constexpr std::size_t kBatch = 2'048;
  TRY(pool_->list([&](std::string object) -> Result<void> {
    // The catalog is in the same namespace.
    if (read_name(object)) objects.push_back(std::move(object));
    return objects.size() < kBatch ? Result<void>() : describe();
  }));
  return describe();
}

Result<void> RadosOrigin::Impl::bury(std::span<const ObjectName> names,
                                     std::chrono::sys_seconds at) {
  TRY(expect_writable());
  const auto bury = [&](const ObjectName&) {
    RadosChange change = pool_->change();
    change.expect_present().expect_attribute(kBuried, "").set_attribute(kBuried, digits_of(at));
    return change;
  };
  return change_all(names, bury, [&](const ObjectName&, int code) -> Result<void> {
    if (code < 0 && code != -ENOENT && code != -ECANCELED) {
      return tl::unexpected(pool_->error("bury an object", code));
    }
    return {};
  });
}

Result<SweepReport> RadosOrigin::Impl::sweep(std::span<const ObjectName> names,
                                             std::chrono::sys_seconds until) {
  TRY(expect_writable());
  std::vector<std::string> objects;
  for (const ObjectName& name : names) objects.push_back(to_hex(name));
  const auto facts = TRY(pool_->describe(objects, kBuried));
  // By when they were buried, whose digits sort as the times do.
  std::map<std::string, std::vector<std::size_t>> turns;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    if (facts[i]) turns[facts[i]->attribute].push_back(i);
  }
  SweepReport report;
  const auto remove = [&](const ObjectName&) {
    RadosChange change = pool_->change();
    change.expect_attribute(kBuried, digits_of({}), digits_of(until)).remove();
    return change;
  };
  for (const auto& [buried_at, turn] : turns) {
    std::vector<ObjectName> removed;
    for (const std::size_t i : turn) removed.push_back(names[i]);
    auto next = turn.begin();
    TRY(change_all(removed, remove, [&](const ObjectName&, int code) -> Result<void> {
      const std::uint64_t bytes = facts[*next++]->bytes;
      if (code == -ENOENT || code == -ECANCELED) return {};
      if (code < 0) return tl::unexpected(pool_->error("remove an object", code));
      ++report.objects;
      report.bytes += bytes;
      return {};
    }));
  }
  return report;
}

std::string RadosOrigin::Impl::place(const ObjectName& name) const {
  return "pool " + options_.pool + ", namespace " + options_.name_space + ", object " +
         to_hex(name);
}

Result<std::unique_ptr<RadosOrigin>> RadosOrigin::open(const Options& options) {
  auto pool = TRY(RadosPool::open({.conf = options.conf,
                                   .pool = options.pool,
                                   .name_space = options.name_space,
                                   .operation_seconds_max = options.operation_seconds_max}));
  std::string writer = fmt::format("{:016x}", TRY(random_key()));
  return std::unique_ptr<RadosOrigin>(
      new RadosOrigin(std::make_unique<Impl>(options, std::move(pool), std::move(writer))));
}

RadosOrigin::RadosOrigin(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RadosOrigin::~RadosOrigin() {
  // What cannot be taken back here is found by the garbage collector.
  if (auto discarded = impl_->discard(); !discarded) return;
}

Result<void> RadosOrigin::put(const ObjectName& name, std::span<const std::byte> bytes) {
  return impl_->put(name, bytes);
}

Result<void> RadosOrigin::keep(const ObjectName& name) {
  return impl_->keep(name);
}

Result<void> RadosOrigin::sync() {
  return impl_->sync();
}

Result<void> RadosOrigin::discard() {
  return impl_->discard();
}

Result<std::vector<std::byte>> RadosOrigin::get(const ObjectName& name) {
  return impl_->get(name);
}

Result<bool> RadosOrigin::contains(const ObjectName& name) {
  return impl_->contains(name);
}

Result<void> RadosOrigin::list(const Visit& visit) {
  return impl_->list(visit);
}

Result<void> RadosOrigin::bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) {
  return impl_->bury(names, at);
}

Result<SweepReport> RadosOrigin::sweep(std::span<const ObjectName> names,
                                       std::chrono::sys_seconds until) {
  return impl_->sweep(names, until);
}

std::string RadosOrigin::place(const ObjectName& name) {
  const auto there = impl_->contains(name);
  return there && *there ? impl_->place(name) : "nowhere";
}

}  // namespace samepage::imagestore
