#include "tools/benchmarks/store/clients.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <fstream>
#include <mutex>
#include <numeric>
#include <thread>

#include <nlohmann/json.hpp>
#include <unistd.h>

namespace samepage::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Of each client; enough for percentiles.
constexpr std::size_t kLatenciesMax = 20'000;

double percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<std::size_t>(share * last)];
}

}  // namespace

double cpu_seconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto end = text.rfind(')');
  if (end == text.npos) return 0;
  std::istringstream fields(text.substr(end + 1));
  std::string ignored;
  for (int i = 0; i < 11; ++i) fields >> ignored;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

nlohmann::json to_json(Row row) {
  std::ranges::sort(row.latencies_us);
  const double seconds = std::max(row.seconds, 1e-9);
  return {{"path", row.path},
          {"case", row.name},
          {"clients", row.clients},
          {"seconds", row.seconds},
          {"boots_per_s", static_cast<double>(row.clients) / seconds},
          {"bytes_fetched", row.bytes},
          {"cpu_s", row.cpu_s},
          {"server_cpu_s", row.server_cpu_s},
          {"p50_us", percentile(row.latencies_us, 0.5)},
          {"p99_us", percentile(row.latencies_us, 0.99)},
          {"gb_s", static_cast<double>(row.bytes) / seconds / 1e9},
          {"failed", row.failed},
          {"first_error", row.first_error}};
}

Row run_clients(const ClientsOptions& options, const MakeReader& make,
                std::span<const Chunk> chunks) {
  const std::uint64_t threads =
      options.at_once == 0 ? options.clients : std::min(options.at_once, options.clients);
  Row row;
  row.clients = options.clients;
  std::mutex mutex;
  std::atomic<std::uint64_t> next = 0;
  SteadyClock::time_point start;
  double cpu_before = 0;
  double own_before = 0;
  const auto server_cpu = [&] {
    return std::accumulate(options.servers.begin(), options.servers.end(), 0.0,
                           [](double sum, pid_t pid) { return sum + cpu_seconds(pid); });
  };
  std::barrier opened(static_cast<std::ptrdiff_t>(threads), [&]() noexcept {
    cpu_before = server_cpu();
    own_before = cpu_seconds(::getpid());
    start = SteadyClock::now();
  });
  const auto run = [&] {
    auto reader = make();
    opened.arrive_and_wait();
    std::vector<double> latencies;
    std::uint64_t bytes = 0;
    std::uint64_t failed = 0;
    std::string error = reader ? "" : reader.error().message();
    while (next++ < options.clients) {
      const auto note = [&](double us) {
        if (latencies.size() < kLatenciesMax) latencies.push_back(us);
      };
      const auto read = reader ? (*reader)->read(chunks, options.depth, note)
                               : Result<std::uint64_t>(tl::unexpected(reader.error()));
      if (read) {
        bytes += *read;
      } else {
        ++failed;
        error = read.error().message();
      }
    }
    const auto end = SteadyClock::now();
    const std::lock_guard lock(mutex);
    row.seconds = std::max(row.seconds, std::chrono::duration<double>(end - start).count());
    row.bytes += bytes;
    row.failed += failed;
    if (!error.empty()) row.first_error = error;
    row.latencies_us.insert(row.latencies_us.end(), latencies.begin(), latencies.end());
  };
  {
    std::vector<std::jthread> all;
    for (std::uint64_t i = 0; i < threads; ++i) all.emplace_back(run);
  }
  row.server_cpu_s = server_cpu() - cpu_before;
  row.cpu_s = cpu_seconds(::getpid()) - own_before + row.server_cpu_s;
  return row;
}

}  // namespace samepage::bench
