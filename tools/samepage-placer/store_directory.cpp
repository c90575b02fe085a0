#include "tools/samepage-placer/store_directory.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

namespace samepage::control {
namespace {

constexpr std::array<std::string_view, 1> kSchema{
    "CREATE TABLE ring (one INTEGER PRIMARY KEY CHECK (one = 1), message BLOB NOT NULL);"};

constexpr std::size_t kHotMax = 256;
constexpr std::size_t kHeatKept = 16'384;
constexpr double kHotReads = 64;    // Below that one home carries it easily.
constexpr double kHotOverMean = 4;  // And it is not as if all were read as much.
constexpr int kWarmNamed = 4;
constexpr std::size_t kNameBytes = sizeof(imagestore::ObjectName::bytes);

}  // namespace

Result<std::unique_ptr<StoreDirectory>> StoreDirectory::open(const std::string& path,
                                                             const Clock& clock) {
  Database database = TRY(Database::open({.path = path}));
  TRY(database.migrate(kSchema));
  std::unique_ptr<StoreDirectory> directory(new StoreDirectory(std::move(database), clock));
  const MutexLock lock(directory->mutex_);
  TRY(directory->load());
  return directory;
}

Result<void> StoreDirectory::load() {
  auto query = TRY(database_.prepare("SELECT message FROM ring"));
  if (!TRY(query.step())) return {};
  const auto bytes = query.blob(0);
  bus::StoreRing message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(Errc::kCorrupt, "the ring in the store's database is no ring");
  }
  ring_ = TRY(imagestore::Ring::from_message(message));
  return {};
}

Result<void> StoreDirectory::keep(const imagestore::Ring& ring) {
  const std::string bytes = ring.to_message().SerializeAsString();
  auto write = TRY(database_.prepare("INSERT OR REPLACE INTO ring (one, message) VALUES (1, ?)"));
  TRY(write.bind({std::as_bytes(std::span(bytes))}));
  TRY(write.run());
  ring_ = ring;
  return {};
}

imagestore::Ring StoreDirectory::ring() const {
  const MutexLock lock(mutex_);
  return ring_;
}

bus::StoreRing StoreDirectory::message() const {
  const MutexLock lock(mutex_);
  bus::StoreRing message = ring_.to_message();
  for (const std::string& name : hot_) message.add_hot(name);
  return message;
}

Result<imagestore::Ring> StoreDirectory::join(const imagestore::RingMember& member) {
  const MutexLock lock(mutex_);
  const auto known = hosts_.find(member.node);
  if (known == hosts_.end() || !known->second.report.is_node()) {
    return fail(Errc::kInvalid, member.node +
                                    " lends the store no memory, or has not reported yet; start "
                                    "its samepaged with --store-mib");
  }
  const auto next = TRY(ring_.joined(member));
  TRY(keep(next));
  return ring_;
}

Result<imagestore::Ring> StoreDirectory::leave(const std::string& node) {
  const MutexLock lock(mutex_);
  const auto next = TRY(ring_.left(node));
  TRY(keep(next));
  return ring_;
}

Result<void> StoreDirectory::forget(const std::string& host) {
  const MutexLock lock(mutex_);
  hosts_.erase(host);
  auto without = ring_.left(host);
  return without ? keep(*without) : Result<void>();
}

bool StoreDirectory::take_report(const std::string& host, const bus::StoreReport& report) {
  const MutexLock lock(mutex_);
  Known& known = hosts_[host];
  known.report = report;
  known.report.clear_hot();
  known.at = clock_.now();
  for (auto& [name, heat] : heat_) heat /= 2;
  for (const bus::HotExtent& extent : report.hot()) {
    if (extent.name().size() != kNameBytes) continue;
    if (heat_.size() < kHeatKept || heat_.contains(extent.name())) {
      heat_[extent.name()] +=
          static_cast<double>(std::min<std::uint64_t>(extent.reads(), 1U << 30U));
    }
  }
  std::erase_if(heat_, [](const auto& entry) { return entry.second < 1; });
  return choose_hot();
}

bool StoreDirectory::choose_hot() {
  double sum = 0;
  for (const auto& [name, heat] : heat_) sum += heat;
  const double mean = heat_.empty() ? 0 : sum / static_cast<double>(heat_.size());
  const double bound = std::max(kHotReads, kHotOverMean * mean);
  std::vector<std::pair<double, std::string>> hottest;
  for (const auto& [name, heat] : heat_) {
    if (heat >= bound) hottest.emplace_back(-heat, name);
  }
  std::ranges::sort(hottest);
  hottest.resize(std::min(hottest.size(), kHotMax));
  std::vector<std::string> hot;
  for (auto& [heat, name] : hottest) hot.push_back(std::move(name));
  std::ranges::sort(hot);
  if (hot == hot_) return false;
  hot_ = std::move(hot);
  return true;
}

bus::WarmHosts StoreDirectory::warm_hosts(const std::string& version, const std::string& asker) {
  const MutexLock lock(mutex_);
  std::vector<std::pair<std::uint64_t, std::string>> warm;
  for (const auto& [host, known] : hosts_) {
    if (host == asker || !known.report.is_node()) continue;
    if (std::ranges::count(known.report.warm_versions(), version) > 0) {
      warm.emplace_back(known.named, host);
    }
  }
  std::ranges::sort(warm);
  bus::WarmHosts answer;
  for (const auto& [named, host] : warm) {
    if (answer.hosts_size() == kWarmNamed) break;
    ++hosts_[host].named;
    answer.add_hosts(host);
  }
  // The asker is warm himself from here on, whatever his next report says of it.
  if (version.size() == 2 * kNameBytes) {
    auto& versions = *hosts_[asker].report.mutable_warm_versions();
    if (std::ranges::count(versions, version) == 0) *versions.Add() = version;
  }
  return answer;
}

StoreDirectory::Status StoreDirectory::status() const {
  const MutexLock lock(mutex_);
  std::map<std::string, Node> nodes;
  const auto shares = ring_.shares();
  for (std::size_t i = 0; i < ring_.members().size(); ++i) {
    const imagestore::RingMember& member = ring_.members()[i];
    nodes[member.node] = {.name = member.node, .member = member, .slots = shares[i], .report = {}};
  }
  for (const auto& [host, known] : hosts_) {
    if (!known.report.is_node() && !nodes.contains(host)) continue;
    Node& node = nodes[host];
    node.name = host;
    node.report = known.report;
    node.report_age =
        std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - known.at);
  }
  Status status{.version = ring_.version(), .nodes = {}, .hot_extents = hot_.size()};
  for (auto& [name, node] : nodes) status.nodes.push_back(std::move(node));
  return status;
}

}  // namespace samepage::control
