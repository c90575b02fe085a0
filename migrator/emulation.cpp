#include "migrator/emulation.h"

#include <filesystem>
#include <fstream>

namespace samepage::migrator {

bool is_emulated(pid_t qemu, const std::string& proc) {
  std::error_code error;
  std::filesystem::directory_iterator task(proc + "/" + std::to_string(qemu) + "/task", error);
  for (; !error && task != std::filesystem::directory_iterator(); task.increment(error)) {
    std::ifstream file(task->path() / "comm");
    std::string name;
    std::getline(file, name);
    if (name.starts_with("CPU ") && name.ends_with("/TCG")) return true;
  }
  return false;
}

}  // namespace samepage::migrator
