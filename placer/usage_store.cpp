#include "placer/usage_store.h"

#include <cmath>

#include "placer/stored_time.h"

namespace samepage::placer {
namespace {

// A subject's first letter tells what it is.
constexpr char kHost = 'h';
constexpr char kVm = 'v';

bool is_sound(const UsageSample& sample) {
  return std::isfinite(sample.cpu) && std::isfinite(sample.network) && std::isfinite(sample.disk) &&
         std::isfinite(sample.memory);
}

}  // namespace

Result<void> UsageStore::add(const std::vector<UsageSample>& samples) {
  if (samples.empty()) return {};
  Transaction change = TRY(database_.begin());
  Statement insert =
      TRY(database_.prepare("INSERT OR REPLACE INTO usage (subject, at, cpu, network, disk, memory)"
                            " VALUES (?, ?, ?, ?, ?, ?)"));
  for (const UsageSample& sample : samples) {
    if (!is_sound(sample)) continue;
    const std::string subject = (sample.is_host ? kHost : kVm) + sample.subject;
    TRY(insert.bind(
        {subject, stored_time(sample.at), sample.cpu, sample.network, sample.disk, sample.memory}));
    TRY(insert.run());
  }
  const std::int64_t oldest = stored_time(clock_.today() - options_.age_max);
  Statement drop = TRY(database_.prepare("DELETE FROM usage WHERE at < ?"));
  TRY(drop.bind({oldest}));
  TRY(drop.run());
  return change.commit();
}

Result<std::vector<UsageSample>> UsageStore::all() {
  Statement row =
      TRY(database_.prepare("SELECT subject, cpu, network, disk, memory, at FROM"
                            " (SELECT * FROM usage ORDER BY at DESC LIMIT ?) ORDER BY at"));
  TRY(row.bind({static_cast<std::int64_t>(options_.restored_max)}));
  std::vector<UsageSample> samples;
  while (TRY(row.step())) {
    const std::string subject = row.text(0);
    if (subject.empty()) continue;
    samples.push_back({.subject = subject.substr(1),
                       .at = time_of(row.integer(5)),
                       .is_host = subject.front() == kHost,
                       .cpu = row.real(1),
                       .network = row.real(2),
                       .disk = row.real(3),
                       .memory = row.real(4)});
  }
  return samples;
}

}  // namespace samepage::placer
