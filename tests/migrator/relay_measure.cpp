// Measures the relays on a captured stream: relay_measure STREAM [TWIN]
//
// STREAM and TWIN are files that QEMU wrote with `migrate exec:cat>FILE`. The target's page cache
// holds the pages of TWIN's guest. Without TWIN it is empty.
// Everything runs in this process, over UNIX sockets, without TLS.

#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>

#include <sys/socket.h>

#include "migrator/socket_stream.h"
#include "migrator/stream_parser.h"
#include "tests/migrator/relay_harness.h"

namespace samepage::migrator {
namespace {

Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

HostPages pages_of(std::span<const std::byte> stream) {
  auto pages = std::make_shared<std::vector<Bytes>>();
  StreamParser parser;
  while (const auto token = parser.next(stream)) {
    stream = stream.subspan(token->bytes.size());
    if (token->kind != StreamToken::Kind::kPage) continue;
    pages->emplace_back(token->page().begin(), token->page().end());
  }
  return pages;
}

std::pair<std::unique_ptr<SocketStream>, std::unique_ptr<SocketStream>> socket_pair() {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()) != 0) std::abort();
  return {std::make_unique<SocketStream>(Fd(fds[0])), std::make_unique<SocketStream>(Fd(fds[1]))};
}

double cpu_seconds(clockid_t clock) {
  std::timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Reads everything and compares it piece by piece with what must come.
bool same(ByteStream& stream, std::span<const std::byte> expected) {
  Bytes buffer(1U << 20U);
  for (;;) {
    const auto size = stream.read_some(buffer, in_time());
    if (!size || *size > expected.size()) return false;
    if (*size == 0) return expected.empty();
    if (!std::equal(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(*size),
                    expected.begin())) {
      return false;
    }
    expected = expected.subspan(*size);
  }
}

int measure(const Bytes& stream, pagecache::PageCache& cache) {
  auto source_qemu = socket_pair();
  auto wire = socket_pair();
  auto target_qemu = socket_pair();
  const auto source =
      RelaySource::create({}, {*source_qemu.second, *wire.first}, test_domain, kSecret).value();
  const auto target =
      RelayTarget::create({}, {*target_qemu.second, *wire.second}, cache, test_domain, kSecret)
          .value();

  const auto started = std::chrono::steady_clock::now();
  const double cpu_before = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
  const double own_before = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
  double sink_cpu = 0;
  bool good = true;
  std::thread source_thread([&] {
    if (!source->run()) std::puts("source failed");
  });
  std::thread target_thread([&] {
    if (!target->run()) std::puts("target failed");
  });
  std::thread sink([&] {
    good = same(*target_qemu.first, stream);
    (void)target_qemu.first->finish_writing();
    sink_cpu = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
  });
  (void)source_qemu.first->write_all(stream, in_time());
  (void)source_qemu.first->finish_writing();
  source_thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  target_thread.join();
  sink.join();
  // Both relays together: what this process took, without playing both QEMUs.
  const double cpu = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_before - sink_cpu -
                     (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - own_before);

  const RelayCounters counters = source->counters();
  const double mb = static_cast<double>(stream.size()) / 1e6;
  std::printf(
      "same=%d stream_mb=%.1f wire_mb=%.2f ratio=%.2f%% refs=%lu literals=%lu zeros=%lu "
      "resent=%lu seconds=%.2f mb_per_s=%.0f cpu_s_per_gb=%.2f\n",
      good ? 1 : 0, mb, static_cast<double>(counters.wire_bytes) / 1e6,
      100.0 * static_cast<double>(counters.wire_bytes) / static_cast<double>(stream.size()),
      counters.page_refs, counters.page_literals, counters.zero_pages, counters.pages_resent,
      seconds.count(), mb / seconds.count(), 1000 * cpu / mb);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace samepage::migrator

int main(int argc, char** argv) {
  using namespace samepage::migrator;  // NOLINT(google-build-using-namespace)
  if (argc < 2 || argc > 3) {
    std::fputs("usage: relay_measure STREAM [TWIN]\n", stderr);
    return 2;
  }
  const Bytes stream = read_file(argv[1]);
  const auto cache = argc == 3 ? make_cache(pages_of(read_file(argv[2]))) : empty_cache();
  // The second time, the relays' memory is there.
  const int first = measure(stream, *cache);
  return measure(stream, *cache) | first;
}
