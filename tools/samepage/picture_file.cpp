#include "tools/samepage/picture_file.h"

#include <cstdio>
#include <fstream>

namespace samepage::cli {

Result<void> write_picture(const std::string& path, const std::string& picture) {
  const std::string partial = path + ".new";
  std::ofstream file(partial, std::ios::trunc);
  file << picture;
  file.close();
  if (!file || std::rename(partial.c_str(), path.c_str()) != 0) {
    std::remove(partial.c_str());
    return fail(Errc::kIo, "cannot write " + path);
  }
  return {};
}

}  // namespace samepage::cli
