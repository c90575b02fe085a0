#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>
#include <sys/types.h>

#include "tools/benchmarks/store/reader.h"

namespace samepage::bench {

/// One row of the benchmark's table.
struct Row {
  std::string path;
  std::string name;  ///< Of the case.
  std::uint64_t clients = 0;
  double seconds = 0;
  std::uint64_t bytes = 0;
  double cpu_s = 0;  ///< Of clients and servers: what is left of it on a machine that is busy.
  double server_cpu_s = 0;
  std::vector<double> latencies_us = {};
  std::uint64_t failed = 0;
  std::string first_error = {};
};

/// With percentiles and rates.
nlohmann::json to_json(Row row);

struct ClientsOptions {
  std::uint64_t clients = 1;
  std::size_t depth = 1;
  std::uint64_t at_once = 0;        ///< Clients that run at the same time; 0: all.
  std::vector<pid_t> servers = {};  ///< Whose processor time is counted.
};

/// Opens the clients, then has all of them read the chunks, and takes the time from the first read
/// to the last.
Row run_clients(const ClientsOptions& options, const MakeReader& make,
                std::span<const Chunk> chunks);

/// User and system time of a process so far.
double cpu_seconds(pid_t pid);

}  // namespace samepage::bench
