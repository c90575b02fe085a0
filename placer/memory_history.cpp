#include "placer/memory_history.h"

#include <algorithm>

#include "placer/stored_time.h"

namespace samepage::placer {
namespace {

using fingerprinter::MemoryShares;

constexpr double kChangedPagesMin = 256;

double distance(std::uint64_t a, std::uint64_t b) {
  return static_cast<double>(std::max(a, b) - std::min(a, b));
}

MemorySample read_sample(const VmId& vm, const Statement& row) {
  return {.vm = vm,
          .host = row.text(0),
          .at = time_of(row.integer(1)),
          .shares = {.own = static_cast<std::uint64_t>(row.integer(2)),
                     .of_template = static_cast<std::uint64_t>(row.integer(3)),
                     .ksm = static_cast<std::uint64_t>(row.integer(4))}};
}

}  // namespace

bool MemoryHistory::is_news(const MemorySample& sample, const MemorySample& before) const {
  if (sample.host != before.host || sample.at - before.at >= options_.silence_max) return true;
  const MemoryShares& now = sample.shares;
  const MemoryShares& then = before.shares;
  const double change =
      std::max({distance(now.own, then.own), distance(now.of_template, then.of_template),
                distance(now.ksm, then.ksm)});
  const auto pages = static_cast<double>(now.own + now.of_template + now.ksm);
  return change >= std::max(kChangedPagesMin, options_.change_min * pages);
}

Result<void> MemoryHistory::add(const std::vector<MemorySample>& samples) {
  if (samples.empty()) return {};
  Transaction change = TRY(database_.begin());
  Statement insert =
      TRY(database_.prepare("INSERT OR REPLACE INTO vm_memory"
                            " (vm, at, host, own, of_template, ksm) VALUES (?, ?, ?, ?, ?, ?)"));
  Statement trim =
      TRY(database_.prepare("DELETE FROM vm_memory WHERE vm = ? AND at <="
                            " (SELECT at FROM vm_memory WHERE vm = ? ORDER BY at DESC"
                            " LIMIT 1 OFFSET ?)"));
  for (const MemorySample& sample : samples) {
    const auto before = TRY(newest(sample.vm, 1));
    if (!before.empty() && !is_news(sample, before.front())) continue;
    const MemoryShares& shares = sample.shares;
    TRY(insert.bind(
        {sample.vm.uuid, stored_time(sample.at), sample.host, static_cast<std::int64_t>(shares.own),
         static_cast<std::int64_t>(shares.of_template), static_cast<std::int64_t>(shares.ksm)}));
    TRY(insert.run());
    TRY(trim.bind(
        {sample.vm.uuid, sample.vm.uuid, static_cast<std::int64_t>(options_.points_per_vm_max)}));
    TRY(trim.run());
  }
  Statement drop = TRY(database_.prepare("DELETE FROM vm_memory WHERE at < ?"));
  TRY(drop.bind({stored_time(clock_.today() - options_.age_max)}));
  TRY(drop.run());
  return change.commit();
}

Result<std::vector<MemorySample>> MemoryHistory::newest(const VmId& vm, std::size_t count) {
  Statement row =
      TRY(database_.prepare("SELECT host, at, own, of_template, ksm FROM vm_memory"
                            " WHERE vm = ? ORDER BY at DESC LIMIT ?"));
  TRY(row.bind({vm.uuid, static_cast<std::int64_t>(count)}));
  std::vector<MemorySample> samples;
  while (TRY(row.step())) samples.push_back(read_sample(vm, row));
  return samples;
}

}  // namespace samepage::placer
