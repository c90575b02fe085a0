// The promise under test: every fabric keeps the same contract. Reads need no server processor's
// mind (idle), a bogus, expired, withdrawn or exceeded ticket gets nothing within 1 s, a window is
// written and then closed for good, and a server that is killed ends what is under way.

#include <csignal>
#include <numeric>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "core/clock.h"
#include "imagestore/arena.h"
#include "imagestore/ofi_fabric.h"
#include "imagestore/shm_fabric.h"
#include "imagestore/store_messages.h"
#include "imagestore/store_socket.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using std::chrono::seconds;

constexpr std::uint64_t kDataBytes = 8U << 20U;

std::unique_ptr<Arena> make_arena() {
  auto arena = Arena::create({.data_bytes = kDataBytes,
                              .extent_bytes_mean = 32U << 10U,
                              .gap_bytes = 64U << 10U,
                              .region_bytes_max = 1U << 20U});
  EXPECT_TRUE(arena) << arena.error().message();
  const std::uint64_t from = (*arena)->geometry().data_offset;
  for (std::uint64_t i = from; i < (*arena)->memory().size(); ++i) {
    (*arena)->memory()[i] = static_cast<std::byte>((i - from) * 7 / 64);
  }
  return *std::move(arena);
}

std::byte expected_at(std::uint64_t offset) {
  return static_cast<std::byte>(offset * 7 / 64);
}

std::unique_ptr<FabricServer> make_server(const std::string& fabric, Arena& arena) {
  if (fabric == kShmFabric) {
    return std::make_unique<ShmServer>(ShmServer::Options{}, arena.memory(), arena.descriptor());
  }
  auto server = OfiServer::create({}, arena.memory());
  EXPECT_TRUE(server) << server.error().message();
  return *std::move(server);
}

Deadline in(std::chrono::steady_clock::duration time) {
  return std::chrono::steady_clock::now() + time;
}

/// Polls until `count` operations ended.
std::vector<RemoteDone> finish(RemoteMemory& memory, std::size_t count) {
  std::vector<RemoteDone> done;
  const Deadline deadline = in(seconds(10));
  while (done.size() < count && std::chrono::steady_clock::now() < deadline) {
    std::vector<RemoteDone> some;
    memory.poll(some, deadline);
    std::ranges::move(some, std::back_inserter(done));
  }
  EXPECT_EQ(done.size(), count);
  return done;
}

Result<void> read_one(RemoteMemory& memory, std::uint64_t offset, std::span<std::byte> into) {
  const RemoteRead read{.tag = 1, .offset = offset, .into = into};
  TRY(memory.read_batch({&read, 1}));
  auto done = finish(memory, 1);
  if (done.empty()) return fail(Errc::kTimedOut, "nothing ended");
  return std::move(done.front().result);
}

class FabricTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<RemoteMemory> open(FabricTicket ticket, FabricAccess access,
                                     Deadline expires = Deadline::max()) {
    auto memory = open_remote(std::move(ticket), access, expires, clock_);
    EXPECT_TRUE(memory) << memory.error().message();
    return *std::move(memory);
  }

  FabricTicket admit(FabricServer& server) {
    auto ticket = server.admit();
    EXPECT_TRUE(ticket) << ticket.error().message();
    return *std::move(ticket);
  }

  const SystemClock clock_;
};

TEST_P(FabricTest, ReadsBatchesAndFindsTheGeometry) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  const auto memory = open(admit(*server), FabricAccess::kRead);

  std::vector<std::byte> header(kArenaHeaderBytes);
  ASSERT_TRUE(read_one(*memory, 0, header));
  const auto geometry = decode_geometry(header);
  ASSERT_TRUE(geometry);
  EXPECT_EQ(geometry->data_bytes, kDataBytes);

  std::vector<std::vector<std::byte>> buffers(64, std::vector<std::byte>(32U << 10U));
  std::vector<RemoteRead> reads;
  for (std::uint64_t i = 0; i < buffers.size(); ++i) {
    reads.push_back({.tag = i,
                     .offset = geometry->data_offset + i * buffers[i].size() + i,
                     .into = buffers[i]});
  }
  ASSERT_TRUE(memory->read_batch(reads));
  for (const RemoteDone& done : finish(*memory, reads.size())) {
    ASSERT_TRUE(done.result) << done.result.error().message();
    const auto& buffer = buffers.at(done.tag);
    const std::uint64_t from = done.tag * buffer.size() + done.tag;
    for (std::uint64_t i = 0; i < buffer.size(); i += 61) {
      ASSERT_EQ(buffer[i], expected_at(from + i));
    }
  }
}

TEST_P(FabricTest, RefusesRangesOutsideOfTheTicket) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  const auto memory = open(admit(*server), FabricAccess::kRead);
  std::vector<std::byte> buffer(4096);
  for (const std::uint64_t offset :
       {memory->bytes() - 4095, memory->bytes(), UINT64_MAX, UINT64_MAX - 4095}) {
    const RemoteRead read{.tag = 0, .offset = offset, .into = buffer};
    const auto refused = memory->read_batch({&read, 1});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  }
  EXPECT_TRUE(read_one(*memory, memory->bytes() - 4096, buffer));
}

TEST_P(FabricTest, RefusesAForgedLargerTicket) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  FabricTicket ticket = admit(*server);
  ticket.bytes += 1U << 20U;
  auto memory = open_remote(std::move(ticket), FabricAccess::kRead, Deadline::max(), clock_);
  if (!memory) {
    EXPECT_EQ(memory.error().code(), Errc::kInvalid);
    return;
  }
  std::vector<std::byte> buffer(4096);
  const auto refused = read_one(**memory, (*memory)->bytes() - 8192, buffer);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
  EXPECT_FALSE((*memory)->is_usable());
}

TEST_P(FabricTest, RefusesABogusKeyAndServesTheOthers) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  const auto honest = open(admit(*server), FabricAccess::kRead);
  FabricTicket ticket = admit(*server);
  ticket.key ^= 1;
  std::vector<std::byte> buffer(4096, std::byte{0xEE});
  auto memory = open_remote(std::move(ticket), FabricAccess::kRead, Deadline::max(), clock_);
  if (memory) {
    const auto refused = read_one(**memory, (*memory)->bytes() - 4096, buffer);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
    EXPECT_EQ(buffer, std::vector<std::byte>(4096, std::byte{0xEE}));
  } else {
    EXPECT_EQ(memory.error().code(), Errc::kUnavailable);
  }
  EXPECT_TRUE(read_one(*honest, 0, buffer));
}

TEST_P(FabricTest, AWithdrawnTicketIsUselessWithinASecond) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  FabricTicket ticket = admit(*server);
  const std::uint64_t key = ticket.key;
  const auto memory = open(std::move(ticket), FabricAccess::kRead);
  const auto other = open(admit(*server), FabricAccess::kRead);
  std::vector<std::byte> buffer(4096);
  ASSERT_TRUE(read_one(*memory, 0, buffer));

  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(server->withdraw(key));
  const auto refused = read_one(*memory, 0, buffer);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(1));
  EXPECT_TRUE(read_one(*other, 0, buffer));

  const auto again = server->withdraw(key);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), Errc::kNotFound);
}

TEST_P(FabricTest, AnExpiredTicketIsUseless) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  const auto memory = open(admit(*server), FabricAccess::kRead);
  std::vector<std::byte> buffer(4096);
  ASSERT_TRUE(read_one(*memory, 0, buffer));
  memory->extend(std::chrono::steady_clock::now());
  const auto refused = read_one(*memory, 0, buffer);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
  memory->extend(in(seconds(10)));
  EXPECT_TRUE(read_one(*memory, 0, buffer));
}

TEST_P(FabricTest, AReaderCannotWriteAndAWindowCannotRead) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  const auto reader = open(admit(*server), FabricAccess::kRead);
  std::vector<std::byte> buffer(4096);
  const RemoteWrite write{.tag = 0, .offset = 0, .from = buffer};
  const auto refused = reader->write_batch({&write, 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);

  // Whoever opens a reader's ticket for writing gets nowhere either: not by the client's word.
  FabricTicket ticket = admit(*server);
  auto forged = open_remote(std::move(ticket), FabricAccess::kWrite, Deadline::max(), clock_);
  if (forged) {
    const std::byte before = arena->memory()[arena->geometry().data_offset];
    std::vector<std::byte> evil(4096, ~before);
    const RemoteWrite scribble{.tag = 0, .offset = arena->geometry().data_offset, .from = evil};
    ASSERT_TRUE((*forged)->write_batch({&scribble, 1}));
    EXPECT_FALSE(finish(**forged, 1).front().result);
    EXPECT_EQ(arena->memory()[arena->geometry().data_offset], before);
  }
}

TEST_P(FabricTest, AWindowIsWrittenOnceAndClosedForGood) {
  const auto arena = make_arena();
  const auto server = make_server(GetParam(), *arena);
  const auto region = arena->reserve(256U << 10U, in(seconds(60)), clock_.now());
  ASSERT_TRUE(region);
  auto ticket = server->open_window(region->offset, region->bytes);
  ASSERT_TRUE(ticket) << ticket.error().message();
  const std::uint64_t key = ticket->key;
  const auto window = open(*std::move(ticket), FabricAccess::kWrite);
  const auto bytes = random_bytes(100'000, 3);
  const RemoteWrite write{.tag = 9, .offset = 5'000, .from = bytes};
  ASSERT_TRUE(window->write_batch({&write, 1}));
  ASSERT_TRUE(finish(*window, 1).front().result);
  ASSERT_TRUE(server->withdraw(key));
  const auto landed = arena->memory().subspan(region->offset + 5'000, bytes.size());
  EXPECT_TRUE(std::ranges::equal(landed, bytes));

  // What the writer writes now lands nowhere that a reader sees.
  const auto other = random_bytes(100'000, 4);
  const RemoteWrite late{.tag = 10, .offset = 5'000, .from = other};
  if (window->write_batch({&late, 1})) static_cast<void>(finish(*window, 1));
  EXPECT_TRUE(std::ranges::equal(landed, bytes));
}

/// A server in a process of its own, which hands out one ticket.
class ServerProcess {
 public:
  explicit ServerProcess(const std::string& fabric) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const auto arena = make_arena();
      const auto server = make_server(fabric, *arena);
      const auto given = server->admit();
      const std::string message = to_message(*given).SerializeAsString();
      static_cast<void>(send_frame(ends[1], std::as_bytes(std::span(message)),
                                   given->descriptor.get(), in(seconds(5))));
      while (true) ::pause();
    }
    ::close(ends[1]);
    auto frame = receive_frame(ends[0], in(seconds(10)));
    ::close(ends[0]);
    EXPECT_TRUE(frame) << frame.error().message();
    bus::StoreTicket message;
    EXPECT_TRUE(message.ParseFromArray(frame->bytes.data(), static_cast<int>(frame->bytes.size())));
    ticket = from_message(message, std::move(frame->descriptor));
  }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess() { kill(); }

  void stop() {
    ::kill(pid_, SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  FabricTicket ticket;

 private:
  pid_t pid_ = -1;
};

TEST_P(FabricTest, AStoppedServerServesOnOrIsGivenUp) {
  ServerProcess server(GetParam());
  const auto memory = open(std::move(server.ticket), FabricAccess::kRead);
  std::vector<std::byte> buffer(4096);
  ASSERT_TRUE(read_one(*memory, 0, buffer));
  server.stop();
  const auto begun = std::chrono::steady_clock::now();
  const auto read = read_one(*memory, memory->bytes() - 4096, buffer);
  if (memory->is_local()) {
    ASSERT_TRUE(read);
    EXPECT_EQ(buffer[17], expected_at(kDataBytes - 4096 + 17));
  } else {
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), Errc::kUnavailable);
    EXPECT_LT(std::chrono::steady_clock::now() - begun, 3 * kOfiOperationMax);
  }
}

TEST_P(FabricTest, AKilledServerEndsWhatIsUnderWay) {
  ServerProcess server(GetParam());
  const auto memory = open(std::move(server.ticket), FabricAccess::kRead);
  std::vector<std::byte> buffer(4096);
  ASSERT_TRUE(read_one(*memory, 0, buffer));
  server.kill();
  const auto read = read_one(*memory, 0, buffer);
  // Shared memory outlives its server; a connection does not.
  EXPECT_EQ(read.has_value(), memory->is_local());
  EXPECT_EQ(memory->under_way(), 0U);
}

TEST(OfiFabricTest, LeavesTheProgramsSignalsAlone) {
  const auto arena = make_arena();
  const auto server = make_server(kOfiFabric, *arena);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction now {};
    ASSERT_EQ(::sigaction(signal, nullptr, &now), 0);
    EXPECT_EQ(now.sa_handler, SIG_DFL) << signal;
  }
}

TEST(OfiFabricTest, SaysThatAProviderIsMissing) {
  const auto arena = make_arena();
  const auto server = OfiServer::create({.provider = "pigeon"}, arena->memory());
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code(), Errc::kUnavailable);
}

INSTANTIATE_TEST_SUITE_P(Fabrics, FabricTest, testing::Values(kShmFabric, kOfiFabric),
                         [](const auto& fabric) { return std::string(fabric.param); });

}  // namespace
}  // namespace samepage::imagestore
