#include "tools/samepage/image_kernel.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>
#include <string_view>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace samepage::cli {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::size_t kMbrEntries = 4;
constexpr std::size_t kGptEntriesMax = 128;
constexpr std::uint8_t kGptProtective = 0xEE;
constexpr std::uint64_t kExtMagicAt = 1024 + 56;
constexpr std::uint16_t kExtMagic = 0xEF53;
constexpr std::size_t kOutputMax = 4U << 20U;
constexpr std::string_view kKernelPrefix = "vmlinuz-";

template <class T>
T number_at(const Fd& disk, std::uint64_t offset) {
  T value{};
  const ssize_t got = ::pread(disk.get(), &value, sizeof value, static_cast<off_t>(offset));
  return got == ssize_t{sizeof value} ? value : T{};
}

void add_gpt_starts(const Fd& disk, std::vector<std::uint64_t>& starts) {
  const auto table = number_at<std::uint64_t>(disk, kSector + 72) * kSector;
  const auto size = number_at<std::uint32_t>(disk, kSector + 84);
  for (std::size_t i = 0; i < kGptEntriesMax; ++i) {
    starts.push_back(number_at<std::uint64_t>(disk, table + i * size + 32) * kSector);
  }
}

/// Where partitions begin, and the disk itself; all that a table may say, right or wrong.
std::vector<std::uint64_t> starts_of(const Fd& disk) {
  std::vector<std::uint64_t> starts = {0};
  if (number_at<std::uint16_t>(disk, 510) != 0xAA55) return starts;
  for (std::size_t i = 0; i < kMbrEntries; ++i) {
    const std::uint64_t entry = 446 + 16 * i;
    const bool is_gpt = number_at<std::uint8_t>(disk, entry + 4) == kGptProtective;
    if (is_gpt) add_gpt_starts(disk, starts);
    starts.push_back(number_at<std::uint32_t>(disk, entry + 8) * kSector);
  }
  return starts;
}

int close_pipe(FILE* pipe) {
  return ::pclose(pipe);
}

/// What debugfs says to a request, which holds no quotes.
std::string ask(const std::string& file_system, const std::string& request) {
  const std::string command =
      fmt::format("debugfs -R '{}' '{}' 2>/dev/null </dev/null", request, file_system);
  const std::unique_ptr<FILE, decltype(&close_pipe)> pipe(::popen(command.c_str(), "re"),
                                                          &close_pipe);
  std::string output;
  std::array<char, 4096> buffer{};
  while (pipe != nullptr && output.size() < kOutputMax) {
    const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe.get());
    if (got == 0) break;
    output.append(buffer.data(), got);
  }
  return output;
}

/// A name that a shell and debugfs take as it is.
bool is_plain(std::string_view name) {
  return std::ranges::all_of(name, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '_' ||
           c == '+';
  });
}

/// The field of a line "/inode/mode/user/group/name/size/", counted from 1.
std::string_view field_of(std::string_view line, int field) {
  for (; field > 0; --field) {
    const std::size_t slash = line.find('/');
    if (slash == std::string_view::npos) return {};
    line.remove_prefix(slash + 1);
  }
  return line.substr(0, line.find('/'));
}

std::vector<std::string> names_in_boot(const std::string& file_system) {
  std::istringstream listed(ask(file_system, "ls -p /boot"));
  std::vector<std::string> names;
  for (std::string line; std::getline(listed, line);) {
    const std::string_view name = field_of(line, 5);
    if (!name.empty() && is_plain(name)) names.emplace_back(name);
  }
  return names;
}

/// Of the kernels among the names: 6.1.0-10 is newer than 6.1.0-9. Empty: there is none.
std::string newest_version(const std::vector<std::string>& names) {
  std::string newest;
  for (const std::string& name : names) {
    if (!name.starts_with(kKernelPrefix)) continue;
    const std::string version = name.substr(kKernelPrefix.size());
    if (::strverscmp(newest.c_str(), version.c_str()) < 0) newest = version;
  }
  return newest;
}

Result<Fd> copy_out(const std::string& file_system, const std::string& name,
                    const std::string& folder) {
  Fd copy(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!copy) return fail(Errc::kIo, folder + ": " + std::generic_category().message(errno));
  ask(file_system, fmt::format("dump /boot/{} /proc/{}/fd/{}", name, ::getpid(), copy.get()));
  struct stat about {};
  if (::fstat(copy.get(), &about) != 0 || about.st_size == 0) {
    return fail(Errc::kIo, "/boot/" + name + " cannot be read out of the image");
  }
  return copy;
}

/// The first kernel's words in GRUB's menu: "linux /boot/vmlinuz-... root=UUID=... ro quiet".
std::string grub_command_line(const std::string& file_system) {
  const std::string menu = ask(file_system, "cat /boot/grub/grub.cfg");
  std::size_t at = menu.find("\tlinux\t");
  if (at == std::string::npos) at = menu.find("linux /boot/vmlinuz");
  if (at == std::string::npos) return "root=/dev/vda rw";
  const std::string line = menu.substr(at, menu.find('\n', at) - at);
  const std::size_t words = line.find(' ', line.find("vmlinuz"));
  return words == std::string::npos ? "" : line.substr(words + 1);
}

}  // namespace

Result<ImageKernel> find_image_kernel(const Fd& disk, const std::string& folder) {
  for (const std::uint64_t start : starts_of(disk)) {
    if (number_at<std::uint16_t>(disk, start + kExtMagicAt) != kExtMagic) continue;
    const std::string file_system =
        fmt::format("/proc/{}/fd/{}?offset={}", ::getpid(), disk.get(), start);
    const std::vector<std::string> names = names_in_boot(file_system);
    const std::string version = newest_version(names);
    if (version.empty()) continue;
    ImageKernel found;
    found.kernel = TRY(copy_out(file_system, std::string(kKernelPrefix) + version, folder));
    const std::string initrd = "initrd.img-" + version;
    const bool has_initrd = std::ranges::find(names, initrd) != names.end();
    if (has_initrd) found.initrd = TRY(copy_out(file_system, initrd, folder));
    found.command_line = grub_command_line(file_system);
    return found;
  }
  return fail(Errc::kNotFound,
              "no kernel was found in the image's /boot (ext4, read by debugfs of e2fsprogs); name "
              "one with --kernel, --initrd and --append");
}

std::string with_serial_console(const std::string& command_line) {
  if (command_line.find("console=") != std::string::npos) return command_line;
  return command_line + (command_line.empty() ? "" : " ") + "console=ttyS0";
}

}  // namespace samepage::cli
