#include "tools/samepage/boot_machine.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/child_process.h"
#include "core/page.h"
#include "core/random_vm_id.h"
#include "fingerprinter/ram_image.h"

namespace samepage::cli {
namespace {

using fingerprinter::RamImage;

constexpr auto kAnswerMax = std::chrono::seconds(60);
constexpr auto kLogWait = std::chrono::milliseconds(100);
constexpr std::size_t kTailBytes = 600;
constexpr std::size_t kLogBytes = 1U << 20U;
constexpr const char* kFixedUuid = "5a6d0000-0000-4000-8000-000000000001";

using Words = std::vector<std::string>;

std::string error_text() {
  return std::generic_category().message(errno);
}

/// How another process that inherits it names a descriptor as a file.
std::string path_of(const Fd& file) {
  return "/proc/self/fd/" + std::to_string(file.get());
}

Result<Fd> nameless_file(const char* name) {
  Fd file(::memfd_create(name, MFD_CLOEXEC));
  if (!file) return fail(Errc::kIo, "no memory for a file: " + error_text());
  return file;
}

Result<Words> machine_words(const BootMachineOptions& options) {
  const std::string memory = std::to_string(options.memory_mib) + "M";
  Words words = {"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"};
  words.insert(words.end(), {"-display", "none", "-machine", "pc,memory-backend=ram"});
  words.insert(words.end(), {"-accel", options.has_kvm ? "kvm" : "tcg", "-m", memory});
  words.insert(words.end(), {"-smp", std::to_string(options.vcpus)});
  if (options.has_kvm) words.insert(words.end(), {"-cpu", "host"});
  const std::string uuid = options.has_fixed_seeds ? kFixedUuid : TRY(random_vm_id()).uuid;
  words.insert(words.end(), {"-uuid", uuid});
  if (options.has_fixed_seeds) words.insert(words.end(), {"-seed", "1"});
  if (options.has_fixed_clock) {
    words.insert(words.end(), {"-rtc", "base=2026-01-01T00:00:00,clock=vm"});
    words.insert(words.end(), {"-icount", "shift=3,sleep=off"});
  }
  return words;
}

void add_boot_words(const BootMachineOptions& options, Words& words) {
  if (!options.kernel.empty()) words.insert(words.end(), {"-kernel", options.kernel});
  if (!options.initrd.empty()) words.insert(words.end(), {"-initrd", options.initrd});
  if (!options.command_line.empty()) {
    words.insert(words.end(), {"-append", options.command_line});
  }
  if (options.disk != nullptr) {
    words.insert(words.end(), {"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file=" +
                                             path_of(*options.disk)});
  }
}

/// In the child: what it inherits, and QEMU.
[[noreturn]] void become(const Words& words, const std::vector<int>& inherited, int errors) {
  // This process's end is QEMU's, and a Ctrl-C is for this process alone.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setpgid(0, 0);
  for (const int descriptor : inherited) ::fcntl(descriptor, F_SETFD, 0);
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(errors, STDOUT_FILENO);
  ::dup2(errors, STDERR_FILENO);
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments.front(), arguments.data());
  ::dprintf(STDERR_FILENO, "%s cannot be started: install qemu-system-x86\n", words[0].c_str());
  ::_exit(127);
}

Result<void> copy_page(const Fd& to, std::size_t page, PageView bytes, const std::string& folder) {
  const auto offset = static_cast<off_t>(page * kPageSize);
  if (::pwrite(to.get(), bytes.data(), bytes.size(), offset) != ssize_t{kPageSize}) {
    return fail(Errc::kIo, folder + " has no room for copies of RAM (" + error_text() +
                               "); name another folder with --scratch");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<BootMachine>> BootMachine::start(const BootMachineOptions& options) {
  std::unique_ptr<BootMachine> machine(new BootMachine());
  machine->ram_ = TRY(nameless_file("ram"));
  machine->serial_ = TRY(nameless_file("serial"));
  machine->errors_ = TRY(nameless_file("errors"));
  machine->ram_bytes_ = options.memory_mib << 20U;
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    return fail(Errc::kIo, "no sockets: " + error_text());
  }
  Fd ours(sockets[0]);
  Fd theirs(sockets[1]);
  std::vector<int> inherited = {machine->ram_.get(), machine->serial_.get(), theirs.get()};

  Words words = TRY(machine_words(options));
  words.insert(words.end(), {"-object", "memory-backend-file,id=ram,share=on,size=" +
                                            std::to_string(options.memory_mib) +
                                            "M,mem-path=" + path_of(machine->ram_)});
  words.insert(words.end(), {"-chardev", "file,id=serial,path=" + path_of(machine->serial_)});
  words.insert(words.end(), {"-serial", "chardev:serial", "-chardev"});
  words.insert(words.end(), {"socket,id=qmp,fd=" + std::to_string(theirs.get())});
  words.insert(words.end(), {"-mon", "chardev=qmp,mode=control"});
  add_boot_words(options, words);
  if (options.disk != nullptr) inherited.push_back(options.disk->get());
  Fd log_end;
  if (options.logs_blocks) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail(Errc::kIo, "no pipe: " + error_text());
    machine->log_.reset(pipe[0]);
    log_end.reset(pipe[1]);
    inherited.push_back(log_end.get());
    words.insert(words.end(), {"-d", "exec,nochain", "-D", path_of(log_end)});
    words.insert(words.end(), {"-dfilter", "0xffffffff80000000+0x7f000000"});
  }
  machine->started_ = std::chrono::steady_clock::now();
  machine->child_ = ::fork();
  if (machine->child_ < 0) return fail(Errc::kIo, "no process: " + error_text());
  if (machine->child_ == 0) become(words, inherited, machine->errors_.get());
  machine->process_ = open_process(machine->child_);
  // QEMU's ends are QEMU's alone from here on, so that its end is seen here.
  log_end.reset();
  theirs.reset();
  auto qmp = QmpClient::greet(std::move(ours), Deadline::clock::now() + kAnswerMax);
  if (!qmp) {
    return fail(Errc::kInvalid, qmp.error().message() + ": " + machine->tail(machine->errors_));
  }
  machine->qmp_.emplace(std::move(*qmp));
  return machine;
}

BootMachine::~BootMachine() {
  if (child_ <= 0) return;
  ::kill(child_, SIGKILL);
  while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::string BootMachine::tail(const Fd& file) const {
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  std::string text(
      std::min<std::size_t>(static_cast<std::size_t>(std::max<off_t>(size, 0)), kTailBytes), '\0');
  const ssize_t got =
      ::pread(file.get(), text.data(), text.size(), size - static_cast<off_t>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return text;
}

Result<void> BootMachine::check_runs() {
  if (!has_ended(process_)) return {};
  return fail(Errc::kUnavailable, "the VM has ended; it said: " + tail(serial_) + tail(errors_));
}

double BootMachine::ran_s() const {
  const std::chrono::duration<double> ran = std::chrono::steady_clock::now() - started_ - paused_;
  return ran.count();
}

bool BootMachine::has_said(std::string_view text) {
  const off_t size = ::lseek(serial_.get(), 0, SEEK_END);
  if (size <= 0) return false;
  std::string said(static_cast<std::size_t>(size), '\0');
  const ssize_t got = ::pread(serial_.get(), said.data(), said.size(), 0);
  return got > 0 && said.find(text) != std::string::npos;
}

Result<Fd> BootMachine::copy_ram(const std::string& folder) {
  const auto began = std::chrono::steady_clock::now();
  Fd copy(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!copy) return fail(Errc::kIo, folder + ": " + error_text());
  if (::ftruncate(copy.get(), static_cast<off_t>(ram_bytes_)) != 0) {
    return fail(Errc::kIo, folder + ": " + error_text());
  }
  TRY(qmp_->execute("stop", Deadline::clock::now() + kAnswerMax));
  const RamImage ram = TRY(RamImage::map(ram_));
  for (std::size_t i = 0; i < ram.pages(); ++i) {
    if (!is_zero(ram.page(i))) TRY(copy_page(copy, i, ram.page(i), folder));
  }
  TRY(qmp_->execute("cont", Deadline::clock::now() + kAnswerMax));
  paused_ += std::chrono::steady_clock::now() - began;
  return copy;
}

std::string BootMachine::read_log() {
  pollfd waits{.fd = log_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&waits, 1, static_cast<int>(kLogWait.count())) <= 0) return "";
  std::string log(kLogBytes, '\0');
  const ssize_t got = ::read(log_.get(), log.data(), log.size());
  log.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return log;
}

}  // namespace samepage::cli
