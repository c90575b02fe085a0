#include "imagestore/nbd_source.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <deque>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <libnbd.h>
#include <sys/mman.h>

#include "core/clock.h"
#include "core/handle.h"
#include "core/page.h"
#include "imagestore/sandbox.h"

namespace samepage::imagestore {
namespace {

using std::chrono_literals::operator""s;

using NbdHandle = Handle<nbd_handle, nbd_close>;

constexpr std::size_t kRequestsMax = 8;
constexpr std::uint64_t kStatusWindowBytes = 1U << 30U;
constexpr auto kAnswerWithin = 60s;
constexpr int kPollMs = 100;
constexpr std::size_t kComplaintBytesMax = 2000;

Deadline answer_deadline() {
  return std::chrono::steady_clock::now() + kAnswerWithin;
}

tl::unexpected<Error> nbd_failure(Errc code, std::string_view what) {
  return fail(code, std::string(what) + ": " + nbd_get_error());
}

/// Runs the connection until `done` says so.
template <class Done>
Result<void> run_until(nbd_handle* nbd, Deadline deadline, const Done& done) {
  while (!TRY(done())) {
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(Errc::kTimedOut, "qemu-nbd did not answer in time");
    }
    if (nbd_poll(nbd, kPollMs) < 0) return nbd_failure(Errc::kUnavailable, "qemu-nbd");
  }
  return {};
}

/// A child that is killed rather than waited for: nbd_close() waits without a deadline.
class Connection {
 public:
  explicit Connection(NbdHandle nbd) : nbd_(std::move(nbd)) {}
  Connection(Connection&&) noexcept = default;
  Connection& operator=(Connection&&) noexcept = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { close(); }

  nbd_handle* get() const { return nbd_.get(); }

  void close() {
    if (nbd_) nbd_kill_subprocess(nbd_.get(), SIGKILL);
    nbd_.reset();
  }

 private:
  NbdHandle nbd_;
};

struct Run {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

class NbdSource final : public ImageSource {
 public:
  NbdSource(Connection connection, std::uint64_t size_bytes, bool has_status)
      : connection_(std::move(connection)), size_bytes_(size_bytes), has_status_(has_status) {}

  std::uint64_t size_bytes() const override { return size_bytes_; }
  Result<std::optional<SourceBlock>> next() override;

 private:
  struct Request {
    std::int64_t cookie = 0;
    SourceBlock block;
  };

  Result<void> ask_status();
  Result<std::uint64_t> ask_extents(std::uint64_t begin, std::uint64_t end);
  Result<bool> completed(std::int64_t cookie);
  Result<std::optional<Run>> next_run();
  Result<void> ask(const Run& run);
  void add_data(std::uint64_t begin, std::uint64_t end);

  std::deque<Request> requests_;  // Outlives the connection, which writes into its blocks.
  Connection connection_;
  std::uint64_t size_bytes_;
  bool has_status_;
  std::uint64_t asked_ = 0;         // Page-aligned: what is before it is never asked for again.
  std::uint64_t status_known_ = 0;  // Page-aligned: data before it is in data_ or was asked for.
  std::deque<Run> data_;            // Page-aligned, ascending.
};

/// Widens to whole pages and joins what touches or overlaps.
void NbdSource::add_data(std::uint64_t begin, std::uint64_t end) {
  begin = std::max(begin / kPageSize * kPageSize, asked_);
  end = (end + kPageSize - 1) / kPageSize * kPageSize;
  if (!data_.empty() && begin <= data_.back().end) {
    data_.back().end = std::max(data_.back().end, end);
  } else if (begin < end) {
    data_.push_back({begin, end});
  }
}

/// Adds the data that the server tells of between `begin` and `end`; returns how far it told.
Result<std::uint64_t> NbdSource::ask_extents(std::uint64_t begin, std::uint64_t end) {
  std::uint64_t told = begin;
  auto on_extents = [&](const std::uint32_t* entries, std::size_t count) {
    for (std::size_t i = 0; i + 1 < count && told < end; i += 2) {
      const std::uint64_t next = std::min(told + entries[i], end);
      if ((entries[i + 1] & LIBNBD_STATE_ZERO) == 0) add_data(told, next);
      told = next;
    }
  };
  using OnExtents = decltype(on_extents);
  const nbd_extent_callback callback{
      .callback = [](void* user, const char*, std::uint64_t, std::uint32_t* entries,
                     std::size_t count, int*) -> int {
        (*static_cast<OnExtents*>(user))(entries, count);
        return 0;
      },
      .user_data = &on_extents,
      .free = nullptr};
  const std::int64_t cookie =
      nbd_aio_block_status(connection_.get(), end - begin, begin, callback, NBD_NULL_COMPLETION, 0);
  if (cookie < 0) return nbd_failure(Errc::kUnavailable, "ask for the image's holes");
  const auto done = [&] { return completed(cookie); };
  auto waited = run_until(connection_.get(), answer_deadline(), done);
  if (waited) return told;
  // The callback must not outlive this call: without the connection nothing calls it.
  connection_.close();
  return tl::unexpected(std::move(waited).error());
}

/// Learns which part of the next window is data.
Result<void> NbdSource::ask_status() {
  const std::uint64_t begin = status_known_;
  const std::uint64_t end = std::min(size_bytes_, begin + kStatusWindowBytes);
  std::uint64_t told = has_status_ ? TRY(ask_extents(begin, end)) : begin;
  // A server that tells nothing, or not about whole pages, leaves data that must be read.
  if (told / kPageSize <= begin / kPageSize && told < end) {
    add_data(begin, end);
    told = end;
  }
  status_known_ = told == size_bytes_ ? told : told / kPageSize * kPageSize;
  return {};
}

Result<bool> NbdSource::completed(std::int64_t cookie) {
  const int done = nbd_aio_command_completed(connection_.get(), static_cast<std::uint64_t>(cookie));
  if (done < 0) return nbd_failure(Errc::kIo, "qemu-nbd");
  return done > 0;
}

Result<std::optional<Run>> NbdSource::next_run() {
  while (data_.empty() && status_known_ < size_bytes_) TRY(ask_status());
  if (data_.empty()) return std::nullopt;
  Run& first = data_.front();
  const Run run{first.begin, std::min<std::uint64_t>(first.end, first.begin + kBlockBytes)};
  first.begin = run.end;
  if (first.begin >= first.end) data_.pop_front();
  asked_ = run.end;
  return run;
}

Result<void> NbdSource::ask(const Run& run) {
  Request request{.cookie = 0,
                  .block = {.first_page = run.begin / kPageSize,
                            .bytes = std::vector<std::byte>(run.end - run.begin)}};
  const std::uint64_t inside = std::min(run.end, size_bytes_) - run.begin;
  request.cookie = nbd_aio_pread(connection_.get(), request.block.bytes.data(), inside, run.begin,
                                 NBD_NULL_COMPLETION, 0);
  if (request.cookie < 0) return nbd_failure(Errc::kUnavailable, "read through qemu-nbd");
  requests_.push_back(std::move(request));
  return {};
}

Result<std::optional<SourceBlock>> NbdSource::next() {
  if (connection_.get() == nullptr) return fail(Errc::kUnavailable, "qemu-nbd was given up");
  while (requests_.size() < kRequestsMax) {
    const auto run = TRY(next_run());
    if (!run) break;
    TRY(ask(*run));
  }
  if (requests_.empty()) return std::nullopt;
  const std::int64_t cookie = requests_.front().cookie;
  const auto done = [&] { return completed(cookie); };
  TRY(run_until(connection_.get(), answer_deadline(), done));
  SourceBlock block = std::move(requests_.front().block);
  requests_.pop_front();
  return block;
}

/// What the child wrote on its stderr.
std::string complaint(const Fd& stderr_file) {
  std::array<char, kComplaintBytesMax> text{};
  const ssize_t size = ::pread(stderr_file.get(), text.data(), text.size(), 0);
  std::string_view said(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  while (!said.empty() && said.back() == '\n') said.remove_suffix(1);
  return std::string(said);
}

struct Start {
  std::string format;    ///< Empty: `filename` says it.
  std::string filename;  ///< As QEMU takes it.
  int image = -1;        ///< The only file that the child may open, -1: any.
};

Result<void> connect(nbd_handle* nbd, const Start& start, const Fd& stderr_file) {
  if (start.image >= 0) {
    // QEMU reads its modules and libraries from /usr; /dev and /proc lead back to the open image.
    const bool restricted = TRY(restrict_thread_to(
        {"/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"},
        start.image));
    static_cast<void>(restricted);  // The headers were checked; this is the second wall.
  }
  // The shell only redirects: libnbd's child has our stderr, and QEMU's message belongs to ours.
  const std::string run = "exec qemu-nbd \"$@\" 2>>/dev/fd/" + std::to_string(stderr_file.get());
  std::vector<std::string> words{"/bin/sh", "-c", run, "qemu-nbd", "--read-only", "--shared=1"};
  if (!start.format.empty()) words.push_back("--format=" + start.format);
  words.push_back(start.filename);
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  if (nbd_aio_connect_systemd_socket_activation(nbd, argv.data()) < 0) {
    return nbd_failure(Errc::kIo, "start qemu-nbd");
  }
  return run_until(nbd, answer_deadline(), [&]() -> Result<bool> {
    if (nbd_aio_is_ready(nbd) > 0) return true;
    if (nbd_aio_is_dead(nbd) > 0 || nbd_aio_is_closed(nbd) > 0) {
      return fail(Errc::kUnavailable, "qemu-nbd ended");
    }
    return false;
  });
}

/// A copy that children inherit.
Result<Fd> inheritable(int fd) {
  Fd copy(::fcntl(fd, F_DUPFD, 10));
  if (!copy) return fail(Errc::kIo, "dup: " + std::generic_category().message(errno));
  return copy;
}

Result<std::unique_ptr<ImageSource>> open_source(const Start& start) {
  const Fd memory(::memfd_create("qemu-nbd-stderr", MFD_CLOEXEC));
  if (!memory) return fail(Errc::kIo, "memfd: " + std::generic_category().message(errno));
  const Fd stderr_file = TRY(inheritable(memory.get()));
  NbdHandle handle(nbd_create());
  if (!handle) return nbd_failure(Errc::kIo, "libnbd");
  if (nbd_add_meta_context(handle.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) < 0) {
    return nbd_failure(Errc::kIo, "libnbd");
  }
  Connection connection(std::move(handle));
  // A thread of its own, because what restricts the child restricts the thread that starts it.
  Result<void> connected;
  std::jthread([&] { connected = connect(connection.get(), start, stderr_file); }).join();
  if (!connected) {
    const std::string said = complaint(memory);
    if (said.empty()) return tl::unexpected(std::move(connected).error());
    return fail(Errc::kInvalid, said);
  }
  const std::int64_t size = nbd_get_size(connection.get());
  if (size < 0) return nbd_failure(Errc::kIo, "ask for the image's size");
  const bool has_status =
      nbd_can_meta_context(connection.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
  return std::make_unique<NbdSource>(std::move(connection), static_cast<std::uint64_t>(size),
                                     has_status);
}

}  // namespace

Result<std::unique_ptr<ImageSource>> open_nbd_source(Fd image, const std::string& format) {
  const Fd shared = TRY(inheritable(image.get()));
  // The driver is given, its backing file taken away, and the file is the one that was checked,
  // whatever has happened to its name since.
  const std::string filename = R"(json:{"driver":")" + format +
                               R"(","backing":null,"file":{"driver":"file","filename":"/dev/fd/)" +
                               std::to_string(shared.get()) + R"("}})";
  return open_source({.format = {}, .filename = filename, .image = shared.get()});
}

Result<std::unique_ptr<ImageSource>> open_nbd_chain(const std::string& path,
                                                    const std::string& format) {
  return open_source({.format = format, .filename = path, .image = -1});
}

}  // namespace samepage::imagestore
