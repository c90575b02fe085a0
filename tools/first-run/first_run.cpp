#include "tools/first-run/first_run.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/fd.h"

namespace samepage::first_run {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIdentity = "sys/firmware/qemu_fw_cfg/by_name/opt/org.samepage/identity/raw";
constexpr const char* kDoneFor = "var/lib/samepage/identity";
constexpr const char* kLock = "run/samepage-first-run.lock";
constexpr const char* kHooks = "etc/samepage/first-run.d";
constexpr const char* kHardwareClock = "sys/class/rtc/rtc0/since_epoch";

std::optional<std::string> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

bool is_uuid(std::string_view text) {
  constexpr std::size_t kUuidChars = 36;
  return text.size() == kUuidChars &&
         std::ranges::all_of(text, [](unsigned char c) { return std::isxdigit(c) || c == '-'; });
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::error_code none;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, none)) found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

void say_if_failed(const char* what, const Result<void>& done) {
  if (!done) std::fprintf(stderr, "samepage: %s: %s\n", what, done.error().message().c_str());
}

}  // namespace

Result<Identity> parse_identity(std::string_view text) {
  Identity identity;
  std::istringstream words{std::string(text)};
  if (!(words >> identity.uuid >> identity.name >> identity.role) || !is_uuid(identity.uuid)) {
    return fail(Errc::kCorrupt, "the host's word on who this VM is makes no sense");
  }
  return identity;
}

Result<Outcome> FirstRun::run() {
  const Outcome outcome = TRY(look());
  follow(outcome);
  return outcome;
}

Result<Outcome> FirstRun::stay(const std::function<void()>& looked) {
  Outcome outcome = TRY(look());
  looked();
  while (outcome == Outcome::kLeader) {
    TRY(system_.wait_for_card());
    outcome = TRY(look());
  }
  follow(outcome);
  return outcome;
}

Result<Outcome> FirstRun::look() {
  const Fd lock(::open((root_ / kLock).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) {
    return fail(Errc::kIo, std::string("/") + kLock + ": " + std::strerror(errno));
  }
  auto said = read_file(root_ / kIdentity);
  if (!said && system_.run({"modprobe", "-q", "qemu_fw_cfg"})) said = read_file(root_ / kIdentity);
  if (!said) return Outcome::kNothing;
  const Identity identity = TRY(parse_identity(*said));
  if (identity.role == "leader") return Outcome::kLeader;
  if (identity.role != "vm" || read_file(root_ / kDoneFor) == identity.uuid + "\n") {
    return Outcome::kNothing;
  }
  TRY(become(identity));
  return Outcome::kBecame;
}

Result<void> FirstRun::become(const Identity& identity) {
  std::error_code ignored;
  attempt("reseed the random pool", system_.reseed(identity.uuid));
  attempt("set the clock", set_clock());
  attempt("set the host name", system_.set_host_name(identity.name));
  attempt("write the host name", write("etc/hostname", identity.name + "\n"));
  std::string machine_id = identity.uuid;
  std::erase(machine_id, '-');
  attempt("write the machine-id", write("etc/machine-id", machine_id + "\n"));
  fs::remove(root_ / "var/lib/dbus/machine-id", ignored);
  fs::remove(root_ / "var/lib/systemd/random-seed", ignored);
  // An address is leased to a machine-id, and a hook may talk to others.
  if (has_networks()) restart("systemd-networkd");
  // Nobody is to take one fork for another for as long as hooks may need.
  attempt("make SSH host keys", make_ssh_keys());
  run_hooks(identity);
  if (failed_) return fail(Errc::kIo, "this VM is not all of its own yet");
  fs::create_directories((root_ / kDoneFor).parent_path(), ignored);
  return write(kDoneFor, identity.uuid + "\n");
}

/// What nobody waits for.
void FirstRun::follow(Outcome outcome) {
  if (outcome != Outcome::kBecame) return;
  system_.pause(kJournalDelay);
  restart("systemd-journald");
}

/// The guest's clock stood still since the freeze, its hardware clock did not.
Result<void> FirstRun::set_clock() {
  const auto said = read_file(root_ / kHardwareClock);
  if (!said) return {};
  std::int64_t seconds = 0;
  if (std::from_chars(said->data(), said->data() + said->size(), seconds).ec != std::errc()) {
    return fail(Errc::kIo, "the hardware clock says " + *said);
  }
  return system_.set_clock(std::chrono::seconds(seconds));
}

Result<void> FirstRun::write(const std::string& path, std::string_view text) const {
  std::ofstream file(root_ / path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) return fail(Errc::kIo, "/" + path + " cannot be written");
  return {};
}

/// Whether systemd-networkd is told of any but those that it looks after in containers.
bool FirstRun::has_networks() const {
  return std::ranges::any_of(
      std::initializer_list<const char*>{"etc/systemd/network", "run/systemd/network"},
      [&](const char* folder) {
        return std::ranges::any_of(files_in(root_ / folder), [](const fs::path& file) {
          return file.extension() == ".network";
        });
      });
}

void FirstRun::run_hooks(const Identity& identity) {
  for (const fs::path& hook : files_in(root_ / kHooks)) {
    if (::access(hook.c_str(), X_OK) != 0) continue;
    say_if_failed("run a hook", system_.run({hook, identity.name, identity.uuid}));
  }
}

Result<void> FirstRun::make_ssh_keys() {
  if (::access((root_ / "usr/bin/ssh-keygen").c_str(), X_OK) != 0) return {};
  std::error_code ignored;
  for (const fs::path& file : files_in(root_ / "etc/ssh")) {
    if (file.filename().string().starts_with("ssh_host_")) fs::remove(file, ignored);
  }
  TRY(system_.run({"ssh-keygen", "-A"}));
  if (fs::exists(root_ / "etc/ssh/sshd_config", ignored)) restart("ssh");
  return {};
}

void FirstRun::restart(const char* unit) {
  say_if_failed(unit, system_.run({"systemctl", "--no-block", "try-restart", unit}));
}

void FirstRun::attempt(const char* what, const Result<void>& done) {
  if (!done) failed_ = true;
  say_if_failed(what, done);
}

}  // namespace samepage::first_run
