#include "tools/samepaged/host_pressure.h"

#include <charconv>
#include <filesystem>
#include <fstream>

namespace samepage::agent {
namespace {

/// A cgroup calls them "cpu.pressure", the kernel as a whole "cpu".
std::string file_of(const std::string& folder, const std::string& resource) {
  const std::string of_group = folder + "/" + resource + ".pressure";
  std::error_code error;
  return std::filesystem::exists(of_group, error) ? of_group : folder + "/" + resource;
}

// "some avg10=1.23 avg60=0.00 avg300=0.00 total=0"
double stalled(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  if (!(file >> word) || word != "some" || !(file >> word)) return 0;
  constexpr std::string_view kKey = "avg10=";
  if (!word.starts_with(kKey)) return 0;
  double percent = 0;
  std::from_chars(word.data() + kKey.size(), word.data() + word.size(), percent);
  return percent / 100;
}

}  // namespace

std::string pressure_folder(const std::string& asked) {
  if (asked == "none") return {};
  if (!asked.empty()) return asked;
  std::error_code error;
  for (const char* folder : {"/sys/fs/cgroup/machine.slice", "/proc/pressure"}) {
    if (std::filesystem::exists(file_of(folder, "memory"), error)) return folder;
  }
  return {};
}

void put_pressure(const std::string& folder, bus::HostReport& report) {
  if (folder.empty()) return;
  report.set_cpu_stalled(stalled(file_of(folder, "cpu")));
  report.set_memory_stalled(stalled(file_of(folder, "memory")));
  report.set_io_stalled(stalled(file_of(folder, "io")));
}

std::string processor_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t begin = line.find_first_not_of(" \t:", line.find(':'));
    return begin == std::string::npos ? std::string() : line.substr(begin);
  }
  return {};
}

}  // namespace samepage::agent
