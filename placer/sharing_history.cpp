#include "placer/sharing_history.h"

#include <algorithm>

#include "placer/sharing.h"
#include "placer/stored_time.h"

namespace samepage::placer {
namespace {

SharingPoint read_point(const Statement& row) {
  return {.host = row.text(0),
          .at = time_of(row.integer(1)),
          .vms = static_cast<std::uint64_t>(row.integer(2)),
          .predicted_pages = row.real(3),
          .low_pages = row.real(4),
          .high_pages = row.real(5),
          .achieved_pages = static_cast<std::uint64_t>(row.integer(6)),
          .ksm_full_scans = static_cast<std::uint64_t>(row.integer(7))};
}

}  // namespace

Result<void> SharingHistory::note(const Fleet& fleet, const std::string& host) {
  const Host* const found = fleet.find_host(host);
  const auto vms = fleet.vms_on(host);
  if (found == nullptr || !found->memory || !found->memory->ksm_runs || vms.empty()) return {};
  const bool all_known =
      std::all_of(vms.begin(), vms.end(), [](const Vm* vm) { return vm->fingerprint != nullptr; });
  if (!all_known) return {};
  const auto full_scans = static_cast<std::int64_t>(found->memory->ksm_full_scans);
  const auto before = TRY(newest(host, 1));
  if (!before.empty() && static_cast<std::int64_t>(before[0].ksm_full_scans) == full_scans) {
    return {};
  }
  const Estimate predicted = predict_sharing(vms).total();
  auto insert = TRY(database_.prepare(
      "INSERT INTO sharing_history (host, at, vms, predicted, low, high, achieved, full_scans) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"));
  TRY(insert.bind({host, stored_time(clock_.today()), static_cast<std::int64_t>(vms.size()),
                   predicted.pages, predicted.low, predicted.high,
                   static_cast<std::int64_t>(found->memory->achieved_shared_pages()), full_scans}));
  TRY(insert.run());
  auto trim = TRY(database_.prepare(
      "DELETE FROM sharing_history WHERE host = ? AND id NOT IN "
      "(SELECT id FROM sharing_history WHERE host = ? ORDER BY id DESC LIMIT ?)"));
  TRY(trim.bind({host, host, static_cast<std::int64_t>(options_.points_per_host_max)}));
  return trim.run();
}

Result<std::vector<SharingPoint>> SharingHistory::newest(std::string_view host, std::size_t count) {
  auto rows = TRY(database_.prepare(
      "SELECT host, at, vms, predicted, low, high, achieved, full_scans FROM sharing_history "
      "WHERE ? = '' OR host = ? ORDER BY id DESC LIMIT ?"));
  TRY(rows.bind({host, host, static_cast<std::int64_t>(count)}));
  std::vector<SharingPoint> points;
  while (TRY(rows.step())) points.push_back(read_point(rows));
  return points;
}

}  // namespace samepage::placer
