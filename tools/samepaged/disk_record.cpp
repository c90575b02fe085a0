#include "tools/samepaged/disk_record.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <optional>
#include <system_error>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/fd.h"

namespace samepage::agent {
namespace {

using nlohmann::json;

tl::unexpected<Error> io_error(const std::filesystem::path& path) {
  return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(errno));
}

std::optional<imagestore::VersionId> read_hex(const std::string& text) {
  imagestore::VersionId id;
  if (text.size() != 2 * id.bytes.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) {
    std::uint8_t byte = 0;
    const char* const digits = &text[2 * i];
    const auto [end, error] = std::from_chars(digits, digits + 2, byte, 16);
    if (error != std::errc() || end != digits + 2) return std::nullopt;
    id.bytes.at(i) = std::byte{byte};
  }
  return id;
}

constexpr std::array kPhases{DiskPhase::kHere, DiskPhase::kArriving, DiskPhase::kArrived,
                             DiskPhase::kLeaving, DiskPhase::kLeft};

std::optional<DiskPhase> read_phase(const json& text) {
  const auto found = std::ranges::find_if(
      kPhases, [&](DiskPhase phase) { return text == json(to_string(phase)); });
  if (found == kPhases.end()) return std::nullopt;
  return *found;
}

}  // namespace

std::string_view to_string(DiskPhase phase) {
  switch (phase) {
    case DiskPhase::kHere:
      return "here";
    case DiskPhase::kArriving:
      return "arriving";
    case DiskPhase::kArrived:
      return "arrived";
    case DiskPhase::kLeaving:
      return "leaving";
    case DiskPhase::kLeft:
      return "left";
  }
  return "unknown";
}

Result<void> write_record(const std::filesystem::path& folder, const DiskRecord& record) {
  const std::string text = json{{"name", record.name},         {"vm", record.vm},
                                {"image", record.image},       {"number", record.number},
                                {"base", to_hex(record.base)}, {"phase", to_string(record.phase)},
                                {"vm_uuid", record.vm_uuid},   {"has_moved", record.has_moved}}
                               .dump(2) +
                           "\n";
  const auto path = folder / "disk.json";
  const auto fresh = folder / "disk.json.new";
  const Fd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return io_error(fresh);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return io_error(fresh);
  }
  if (::fsync(fd.get()) != 0) return io_error(fresh);
  if (::rename(fresh.c_str(), path.c_str()) != 0) return io_error(fresh);
  const Fd parent(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent || ::fsync(parent.get()) != 0) return io_error(folder);
  return {};
}

Result<DiskRecord> read_record(const std::filesystem::path& folder) {
  const auto path = folder / "disk.json";
  std::ifstream file(path);
  if (!file) return fail(Errc::kNotFound, path.string() + ": no disk is here");
  const json body = json::parse(file, nullptr, false);
  DiskRecord record;
  const auto text = [&](const char* key) {
    return body.is_object() && body.contains(key) && body[key].is_string()
               ? body[key].get<std::string>()
               : std::string();
  };
  record.name = text("name");
  record.vm = text("vm");
  record.image = text("image");
  const auto base = read_hex(text("base"));
  if (!base || record.name.empty() || !body.contains("number") ||
      !body["number"].is_number_unsigned()) {
    return fail(Errc::kCorrupt, path.string() + ": damaged");
  }
  // Records of before disks moved have no phase.
  const auto phase = read_phase(body.value("phase", json("here")));
  if (!phase) return fail(Errc::kInvalid, path.string() + ": of a newer release");
  record.phase = *phase;
  record.vm_uuid = text("vm_uuid");
  record.has_moved = body.value("has_moved", json(false)) == json(true);
  record.base = *base;
  record.number = body["number"].get<std::uint64_t>();
  return record;
}

}  // namespace samepage::agent
