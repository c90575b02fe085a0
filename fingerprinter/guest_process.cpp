#include "fingerprinter/guest_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "core/child_process.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kMapsBytesMax = 64U << 20U;

std::string reason(int number) {
  return std::generic_category().message(number);
}

/// Takes the text up to `end` (or all of it) off the front.
std::string_view cut(std::string_view& text, char end) {
  const std::size_t at = text.find(end);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return part;
}

bool number(std::string_view text, int base, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

/// "7f2f27e00000-7f2f37e00000 rw-p 00000000 00:00 0    [name]"
bool parse_mapping(std::string_view line, Mapping& mapping) {
  if (!number(cut(line, '-'), 16, mapping.start)) return false;
  if (!number(cut(line, ' '), 16, mapping.end)) return false;
  const std::string_view access = cut(line, ' ');
  if (access.size() != 4 || mapping.end <= mapping.start) return false;
  mapping.writable = access[1] == 'w';
  mapping.executable = access[2] == 'x';
  mapping.shared = access[3] == 's';
  if (!number(cut(line, ' '), 16, mapping.offset)) return false;
  mapping.device = cut(line, ' ');
  return number(cut(line, ' '), 10, mapping.inode);
}

bool may_be_ram(const Mapping& mapping) {
  return mapping.writable && !mapping.executable;
}

/// Whether `next` continues `mapping` as a part of one block that the kernel has split.
bool continues(const Mapping& mapping, const Mapping& next) {
  if (!may_be_ram(next) || next.start != mapping.end || next.shared != mapping.shared) return false;
  if (next.inode != mapping.inode || next.device != mapping.device) return false;
  return mapping.inode == 0 || next.offset == mapping.offset + (mapping.end - mapping.start);
}

/// What can be the guest's RAM, and the better the lower its rank.
struct Candidate {
  RamBlock ram;
  unsigned rank = 0;
};

/// Adjoining mappings from `first` on that make up `bytes` or a little more.
std::optional<Candidate> candidate(const std::vector<Mapping>& mappings, std::size_t first,
                                   std::uint64_t bytes) {
  if (!may_be_ram(mappings[first])) return std::nullopt;
  std::size_t last = first;
  while (mappings[last].end - mappings[first].start < bytes) {
    if (last + 1 == mappings.size() || !continues(mappings[last], mappings[last + 1])) {
      return std::nullopt;
    }
    ++last;
  }
  const std::uint64_t found = mappings[last].end - mappings[first].start;
  if (found >= bytes + kRamBytesMore) return std::nullopt;
  const unsigned rank = (found == bytes ? 0U : 2U) + (last == first ? 0U : 1U);
  return Candidate{.ram = {mappings[first].start, found, mappings[first]}, .rank = rank};
}

}  // namespace

std::vector<Mapping> parse_maps(std::string_view maps) {
  std::vector<Mapping> mappings;
  while (!maps.empty()) {
    Mapping mapping;
    if (parse_mapping(cut(maps, '\n'), mapping)) mappings.push_back(std::move(mapping));
  }
  return mappings;
}

Result<RamBlock> find_ram(const std::vector<Mapping>& mappings, std::uint64_t bytes) {
  std::vector<Candidate> best;
  for (std::size_t i = 0; i < mappings.size(); ++i) {
    auto found = candidate(mappings, i, bytes);
    if (!found || (!best.empty() && found->rank > best.front().rank)) continue;
    if (!best.empty() && found->rank < best.front().rank) best.clear();
    best.push_back(*std::move(found));
  }
  if (best.size() != 1) {
    return fail(Errc::kNotFound, std::to_string(best.size()) + " mappings of " +
                                     std::to_string(bytes) + " bytes, not one");
  }
  return best.front().ram;
}

GuestProcess::GuestProcess(pid_t pid, Fd pidfd, Fd folder, Fd pagemap)
    : pid_(pid),
      pidfd_(std::move(pidfd)),
      folder_(std::move(folder)),
      pagemap_(std::move(pagemap)) {}

Result<GuestProcess> GuestProcess::open(pid_t pid) {
  const std::string folder_name = "/proc/" + std::to_string(pid);
  Fd pidfd = open_process(pid);
  if (!pidfd) return fail(Errc::kNotFound, "process " + std::to_string(pid) + " does not exist");
  Fd folder(::open(folder_name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return fail(Errc::kNotFound, folder_name + " does not exist");

  Fd pagemap(::openat(folder.get(), "pagemap", O_RDONLY | O_CLOEXEC));
  const int failure = errno;
  const bool opened = static_cast<bool>(pagemap);
  GuestProcess process(pid, std::move(pidfd), std::move(folder), std::move(pagemap));
  if (!opened) return tl::unexpected(process.blame(folder_name + "/pagemap: " + reason(failure)));
  if (!process.alive()) return tl::unexpected(process.blame(folder_name));
  return process;
}

bool GuestProcess::alive() const {
  // A process keeps its number until it has been reaped, and a pidfd is readable before that.
  pollfd state{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&state, 1, 0) == 0;
}

Error GuestProcess::blame(const std::string& message) const {
  if (alive()) return {Errc::kIo, message};
  return {Errc::kNotFound, "process " + std::to_string(pid_) + " has ended"};
}

Result<std::string> GuestProcess::read_text(const char* name) const {
  const Fd file(::openat(folder_.get(), name, O_RDONLY | O_CLOEXEC));
  const std::string what(name);
  if (!file) return tl::unexpected(blame(what + ": " + reason(errno)));
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0) return tl::unexpected(blame(what + ": " + reason(errno)));
    if (got == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > kMapsBytesMax) return fail(Errc::kIo, what + " has no end");
  }
  if (!alive()) return tl::unexpected(blame(what));
  return text;
}

Result<std::vector<Mapping>> GuestProcess::mappings() const {
  return parse_maps(TRY(read_text("maps")));
}

Result<std::string> GuestProcess::mapping_flags(std::uint64_t start) const {
  const std::string text = TRY(read_text("smaps"));
  std::array<char, 24> heading{};
  std::snprintf(heading.data(), heading.size(), "%08" PRIx64 "-", start);
  constexpr std::string_view kFlags = "\nVmFlags:";
  const std::size_t mapping =
      text.starts_with(heading.data()) ? 0 : text.find("\n" + std::string(heading.data()));
  const std::size_t flags = mapping == std::string::npos ? mapping : text.find(kFlags, mapping);
  if (flags == std::string::npos) return fail(Errc::kIo, "smaps does not show the guest's RAM");
  const std::size_t begin = flags + kFlags.size();
  return text.substr(begin, text.find('\n', begin) - begin);
}

Result<Fd> GuestProcess::open_memory() const {
  Fd memory(::openat(folder_.get(), "mem", O_RDONLY | O_CLOEXEC));
  if (!memory) return tl::unexpected(blame("mem: " + reason(errno)));
  return memory;
}

Result<void> GuestProcess::clear_soft_dirty() const {
  const Fd file(::openat(folder_.get(), "clear_refs", O_WRONLY | O_CLOEXEC));
  if (!file || ::write(file.get(), "4", 1) != 1) {
    return tl::unexpected(blame("clear_refs: " + reason(errno)));
  }
  return {};
}

Result<Fd> GuestProcess::open_file(const Mapping& mapping) const {
  std::array<char, 64> name{};
  char* end = std::copy_n("map_files/", 10, name.begin());
  end = std::to_chars(end, name.end(), mapping.start, 16).ptr;
  *end++ = '-';
  end = std::to_chars(end, name.end(), mapping.end, 16).ptr;
  *end = '\0';
  Fd file(::openat(folder_.get(), name.data(), O_RDONLY | O_CLOEXEC));
  if (!file) return tl::unexpected(blame(std::string(name.data()) + ": " + reason(errno)));
  return file;
}

}  // namespace samepage::fingerprinter
