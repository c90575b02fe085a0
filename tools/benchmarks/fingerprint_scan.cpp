// The speed of scans and rescans, on a process in the place of a guest and on real guests.
//
//   fingerprint_scan speed MIB                      reading, scanning and rescanning MIB of memory
//   fingerprint_scan predict PAUSE_S PID:BYTES ...  what KSM can save of these guests together
//   fingerprint_scan rescan PID:BYTES PERIOD_S S    rescans for S seconds, every PERIOD_S
//
// One line of JSON on stdout.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/page.h"
#include "fingerprinter/guest_memory.h"
#include "fingerprinter/guest_watch.h"
#include "fingerprinter/ksm_accounting.h"
#include "fingerprinter/overlap.h"
#include "fingerprinter/page_scanner.h"
#include "fingerprinter/userfault.h"

namespace samepage::fingerprinter {
namespace {

constexpr HashSeed kSeed{0x5EED};
constexpr int kRounds = 7;
constexpr std::size_t kPagesDirtied = 4'000;

double seconds_on(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

/// Of the processor, in this process: what else runs on the machine does not count.
double seconds_of(const std::function<void()>& work) {
  const double begin = seconds_on(CLOCK_PROCESS_CPUTIME_ID);
  work();
  return seconds_on(CLOCK_PROCESS_CPUTIME_ID) - begin;
}

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "fingerprint_scan: %s\n", result.error().message().c_str());
    std::exit(1);
  }
  return *std::move(result);
}

/// A child process that holds `bytes` of filled memory, noting its writes as a guest that was
/// started with the preload library, and dirties pages when it is told to.
class Holder {
 public:
  enum class Ram { kSharedFile, kOwn, kOwnSmallPages };

  Holder(std::uint64_t bytes, Ram ram) : bytes_(bytes), ram_(ram) {
    if (ram == Ram::kSharedFile) make_file();
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) hold(ends[1]);
    control_ = Fd(ends[0]);
    ::close(ends[1]);
    wait();
  }
  ~Holder() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  VmInfo vm() const {
    VmInfo info;
    info.name = "holder";
    info.memory_bytes = bytes_;
    info.pid = pid_;
    return info;
  }

  /// Has it write to kPagesDirtied pages.
  void dirty() const {
    const char word = 'd';
    if (::write(control_.get(), &word, 1) != 1) std::abort();
    wait();
  }

 private:
  void make_file() {
    file_ = Fd(::memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (::ftruncate(file_.get(), static_cast<off_t>(bytes_)) != 0) std::abort();
    ::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  }

  void wait() const {
    char word = 0;
    if (::read(control_.get(), &word, 1) != 1) std::abort();
  }

  /// As QEMU does: it asks for huge pages. `kOwnSmallPages` is what is left of them where KSM is at
  /// work, or where the kernel had none.
  std::uint64_t* map() const {
    const int flags = file_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    void* const ram =
        ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, file_ ? file_.get() : -1, 0);
    if (ram == MAP_FAILED) std::abort();
    if (ram_ == Ram::kOwn) ::madvise(ram, bytes_, MADV_HUGEPAGE);
    if (ram_ == Ram::kOwnSmallPages) ::madvise(ram, bytes_, MADV_NOHUGEPAGE);
    return static_cast<std::uint64_t*>(ram);
  }

  [[noreturn]] void hold(int control) const {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::uint64_t* const ram = map();
    std::uint64_t state = 1;
    for (std::size_t i = 0; i < bytes_ / 8; ++i) ram[i] = state = state * 6364136223846793005U + 1;
    auto userfault = make_userfault();
    const std::size_t stride = bytes_ / 8 / kPagesDirtied;
    char word = 'r';
    for (;;) {
      if (::write(control, &word, 1) != 1 || ::read(control, &word, 1) != 1) ::_exit(0);
      for (std::size_t i = 0; i < kPagesDirtied; ++i) ++ram[i * stride];
    }
  }

  std::uint64_t bytes_;
  Ram ram_;
  Fd file_;
  Fd control_;
  pid_t pid_ = -1;
};

using Line [[gnu::vector_size(64)]] = std::uint64_t;

/// One pass that does nothing but read.
[[gnu::target_clones("avx512f", "avx2", "default")]] std::uint64_t read_pass(const Line* lines,
                                                                             std::size_t count) {
  std::array<Line, 4> sums{};
  for (std::size_t i = 0; i + sums.size() <= count; i += sums.size()) {
    for (std::size_t k = 0; k < sums.size(); ++k) sums[k] ^= lines[i + k];
  }
  const Line all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  return all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
}

struct Speeds {
  double plain = 0;
  double mapped = 0;
  double readv = 0;
  double readv_small_pages = 0;
};

/// Bytes a second of one core, the best of kRounds.
Speeds measure_scans(std::uint64_t bytes) {
  const Holder shared(bytes, Holder::Ram::kSharedFile);
  const Holder own(bytes, Holder::Ram::kOwn);
  const Holder own_small(bytes, Holder::Ram::kOwnSmallPages);
  const auto mapped = must(open_guest_memory(shared.vm()));
  const auto copied = must(open_guest_memory(own.vm()));
  const auto copied_small = must(open_guest_memory(own_small.vm()));
  const auto view = must(mapped->view({0, mapped->pages()}));
  Speeds best;
  std::uint64_t sum = 0;
  const auto measure = [&](double& fastest, const std::function<void()>& pass) {
    fastest = std::max(fastest, static_cast<double>(bytes) / 1e9 / seconds_of(pass));
  };
  for (int round = 0; round < kRounds; ++round) {
    measure(best.plain, [&] {
      sum ^= read_pass(reinterpret_cast<const Line*>(view.data()), view.size() / sizeof(Line));
    });
    measure(best.mapped, [&] { sum ^= must(scan(*mapped, kSeed)).zero; });
    measure(best.readv, [&] { sum ^= must(scan(*copied, kSeed)).zero; });
    measure(best.readv_small_pages, [&] { sum ^= must(scan(*copied_small, kSeed)).zero; });
  }
  if (sum == 1) std::fputc('\n', stderr);  // So that no pass is left out.
  return best;
}

int speed(std::uint64_t bytes) {
  const Speeds speeds = measure_scans(bytes);
  const Holder own(bytes, Holder::Ram::kOwn);
  const auto watch = must(GuestWatch::open(own.vm(), kSeed));
  must(watch->rescan());
  double idle = std::numeric_limits<double>::max();
  double dirty = std::numeric_limits<double>::max();
  std::uint64_t looked_at = 0;
  for (int round = 0; round < kRounds; ++round) {
    must(watch->rescan());  // Settles what was dirtied.
    idle = std::min(idle, seconds_of([&] { must(watch->rescan()); }));
    own.dirty();
    dirty = std::min(dirty, seconds_of([&] { must(watch->rescan()); }));
    looked_at = watch->last_pass().pages_looked_at;
  }
  const double gib = static_cast<double>(bytes) / (1U << 30U);
  std::printf(R"({"plain_read_gb_s":%.2f,"scan_mapped_gb_s":%.2f,"scan_readv_gb_s":%.2f,)"
              R"("scan_readv_small_pages_gb_s":%.2f,)"
              R"("rescan_idle_ms_per_gib":%.3f,"rescan_us_per_dirty_page":%.3f,)"
              R"("dirty_pages":%zu,"tracker":"%s"})"
              "\n",
              speeds.plain, speeds.mapped, speeds.readv, speeds.readv_small_pages, idle * 1e3 / gib,
              (dirty - idle) * 1e6 / static_cast<double>(looked_at), looked_at,
              std::string(watch->tracker()).c_str());
  return 0;
}

VmInfo guest(const std::string& text) {
  VmInfo vm;
  vm.name = text;
  vm.pid = std::atoi(text.c_str());
  const std::size_t colon = text.find(':');
  vm.memory_bytes = colon == std::string::npos ? 0 : std::stoull(text.substr(colon + 1));
  return vm;
}

int predict(int pause_s, const std::vector<std::string>& names) {
  std::vector<std::unique_ptr<GuestWatch>> watches;
  for (const std::string& name : names) {
    watches.push_back(must(GuestWatch::open(guest(name), kSeed)));
    must(watches.back()->rescan());
  }
  // The second scan tells which pages do not hold still, and a third which of those do by now.
  std::vector<Fingerprint> fingerprints;
  for (int pass = 0; pass < 2; ++pass) {
    std::this_thread::sleep_for(std::chrono::seconds(pause_s));
    fingerprints.clear();
    for (const auto& watch : watches) fingerprints.push_back(must(watch->rescan()));
  }
  const Sharing shared = sharing(fingerprints);
  std::uint64_t unsettled = 0;
  for (const Fingerprint& one : fingerprints) unsettled += one.counts().unsettled;
  std::printf(R"({"pages":%.0f,"low":%.0f,"high":%.0f,"zero":%zu,"within":%zu,"between":%.0f,)"
              R"("unsettled":%zu,"tracker":"%s"})"
              "\n",
              shared.total().pages, shared.total().low, shared.total().high,
              static_cast<std::size_t>(shared.zero), static_cast<std::size_t>(shared.within),
              shared.between.pages, static_cast<std::size_t>(unsettled),
              std::string(watches.front()->tracker()).c_str());
  return 0;
}

int rescan(const std::string& name, double period_s, double for_s) {
  const auto watch = must(GuestWatch::open(guest(name), kSeed));
  double busy_s = 0;
  std::uint64_t passes = 0;
  std::uint64_t pages_read = 0;
  const auto begin = std::chrono::steady_clock::now();
  const auto at = [&](double s) { return begin + std::chrono::duration<double>(s); };
  while (std::chrono::steady_clock::now() < at(for_s)) {
    busy_s += seconds_of([&] { must(watch->rescan()); });
    pages_read += watch->last_pass().pages_read;
    std::this_thread::sleep_until(at(static_cast<double>(++passes) * period_s));
  }
  std::printf(R"({"passes":%zu,"busy_s":%.3f,"pages_read":%zu,"tracker":"%s"})"
              "\n",
              static_cast<std::size_t>(passes), busy_s, static_cast<std::size_t>(pages_read),
              std::string(watch->tracker()).c_str());
  return 0;
}

}  // namespace
}  // namespace samepage::fingerprinter

int main(int argc, char** argv) {
  using namespace samepage::fingerprinter;  // NOLINT(google-build-using-namespace)
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "speed") return speed(std::stoull(words[1]) << 20U);
  if (words.size() > 2 && words[0] == "predict") {
    return predict(std::atoi(words[1].c_str()), {words.begin() + 2, words.end()});
  }
  if (words.size() == 4 && words[0] == "rescan") {
    return rescan(words[1], std::stod(words[2]), std::stod(words[3]));
  }
  std::fprintf(stderr, "usage: see the head of tools/benchmarks/fingerprint_scan.cpp\n");
  return 2;
}
