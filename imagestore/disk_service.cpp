#include "imagestore/disk_service.h"

#include <algorithm>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "core/log.h"
#include "imagestore/page_parcel.h"
#include "imagestore/store_socket.h"

namespace samepage::imagestore {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kConnectionsMax = 16;
constexpr int kPollMs = 200;
constexpr std::chrono::seconds kSendMax{10};

std::string to_text(const VersionId& id) {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

Result<VersionId> read_version(const std::string& text) {
  VersionId id;
  if (text.size() != id.bytes.size()) return fail(Errc::kInvalid, "a version has 32 bytes");
  std::ranges::copy(as_bytes(text), id.bytes.begin());
  return id;
}

/// A message without a field would be none.
bus::DiskReply done() {
  bus::DiskReply reply;
  reply.add_disks()->set_serves(true);
  return reply;
}

void put_failure(const Error& error, bus::Failure& failure) {
  failure.set_code(static_cast<std::uint32_t>(error.code()));
  failure.set_message(error.message());
}

Error read_failure(const bus::Failure& failure) {
  const bool known = failure.code() <= static_cast<std::uint32_t>(Errc::kIo);
  return {known ? static_cast<Errc>(failure.code()) : Errc::kIo, failure.message()};
}

}  // namespace

void put_status(const Disk::Status& status, bus::DiskState& state) {
  const auto& fetched = status.fetched;
  state.set_base(to_text(status.root.base));
  state.set_committed(to_text(status.committed));
  state.set_size_bytes(status.root.size_bytes);
  state.set_serves(true);
  state.set_written_bytes(status.usage.written_pages * kPageSize);
  state.set_zeroed_bytes(status.usage.zero_pages * kPageSize);
  state.set_dirty_bytes(status.usage.dirty_pages * kPageSize);
  state.set_fetched_bytes(fetched.source.origin_bytes);
  state.set_fetched_extents(fetched.demand_fetches + fetched.prefetches);
  state.set_prefetched_extents(fetched.prefetches);
  state.set_own_extents(fetched.source.own_extents);
  state.set_traced_pages(status.traced_pages);
  state.set_followed_pages(status.followed_pages);
}

class DiskService::Impl {
 public:
  Impl(Fd socket, Disk& disk)
      : disk_(disk), socket_(std::move(socket)), thread_([this](const std::stop_token& stop) {
          ::prctl(PR_SET_NAME, "disk-control");
          accept(stop);
        }) {}

 private:
  struct Connection {
    std::atomic<bool> is_over{false};
    std::jthread thread;
  };

  void accept(const std::stop_token& stop);
  void serve(const Fd& socket, const std::stop_token& stop);
  /// What a connection has begun, and what ends with it.
  struct Begun {
    bool freeze = false;
    bool move = false;
  };

  Result<bus::DiskReply> answer(const bus::DiskRequest& request, Begun& begun);
  Result<bus::DiskReply> answer_commit(const bus::DiskRequest& request, Begun& begun);
  Result<bus::DiskReply> answer_move(const bus::DiskRequest& request, Begun& begun);
  void end_move();

  Disk& disk_;
  const Fd socket_;
  std::list<Connection> connections_;  ///< The accepting thread's.
  std::jthread thread_;
};

void DiskService::Impl::accept(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const int count = ::poll(&ready, 1, kPollMs);
    connections_.remove_if([](const Connection& one) { return one.is_over.load(); });
    if (count <= 0 || connections_.size() >= kConnectionsMax) continue;
    Fd accepted(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted) continue;
    Connection& connection = connections_.emplace_back();
    connection.thread =
        std::jthread([this, &connection, fd = std::move(accepted)](const std::stop_token& ends) {
          serve(fd, ends);
          connection.is_over = true;
        });
  }
  connections_.clear();
}

void DiskService::Impl::serve(const Fd& socket, const std::stop_token& stop) {
  Begun begun;
  while (!stop.stop_requested()) {
    auto frame =
        receive_frame(socket.get(), steady_clock::now() + std::chrono::milliseconds(kPollMs));
    if (!frame && frame.error().code() == Errc::kTimedOut) continue;
    bus::DiskRequest request;
    if (!frame ||
        !request.ParseFromArray(frame->bytes.data(), static_cast<int>(frame->bytes.size()))) {
      break;
    }
    bus::DiskReply reply;
    auto answered = answer(request, begun);
    if (answered) {
      reply = *std::move(answered);
    } else {
      put_failure(answered.error(), *reply.mutable_failure());
    }
    if (!send_frame(socket.get(), as_bytes(reply.SerializeAsString()), -1,
                    steady_clock::now() + kSendMax)) {
      break;
    }
  }
  if (begun.freeze) disk_.abandon_commit();
  if (begun.move) end_move();
}

void DiskService::Impl::end_move() {
  disk_.limit_writes(0);
  disk_.overlay().end_move();
}

Result<bus::DiskReply> DiskService::Impl::answer(const bus::DiskRequest& request, Begun& begun) {
  switch (request.kind_case()) {
    case bus::DiskRequest::kAskStatus: {
      bus::DiskReply reply;
      put_status(disk_.status(), *reply.add_disks());
      return reply;
    }
    case bus::DiskRequest::kFreeze:
    case bus::DiskRequest::kAbandon:
    case bus::DiskRequest::kCommit:
      return answer_commit(request, begun);
    default:
      return answer_move(request, begun);
  }
}

Result<bus::DiskReply> DiskService::Impl::answer_commit(const bus::DiskRequest& request,
                                                        Begun& begun) {
  bus::DiskReply reply = done();
  if (request.has_freeze()) {
    TRY(disk_.begin_commit());
    begun.freeze = true;
    return reply;
  }
  if (request.has_abandon()) {
    if (std::exchange(begun.freeze, false)) disk_.abandon_commit();
    return reply;
  }
  if (!std::exchange(begun.freeze, false)) {
    return fail(Errc::kInvalid, "nothing was frozen to be committed");
  }
  const CommitReport report = TRY(disk_.finish_commit(request.commit().image()));
  bus::DiskCommitted& committed = *reply.mutable_committed();
  committed.set_image(request.commit().image());
  committed.set_number(report.number);
  committed.set_version(to_text(report.version.id));
  committed.set_changed_pages(report.changed_pages);
  committed.set_stored_bytes(report.version.stored_bytes);
  return reply;
}

Result<bus::DiskReply> DiskService::Impl::answer_move(const bus::DiskRequest& request,
                                                      Begun& begun) {
  bus::DiskReply reply = done();
  Overlay& overlay = disk_.overlay();
  switch (request.kind_case()) {
    case bus::DiskRequest::kBeginMove:
      TRY(overlay.begin_move(request.begin_move().committed()));
      begun.move = true;
      return reply;
    case bus::DiskRequest::kTakePages: {
      if (!begun.move) return fail(Errc::kInvalid, "the disk does not move");
      auto unsent = TRY(overlay.take_unsent(kParcelPagesMax));
      reply.set_round_ended(unsent.is_last);
      if (unsent.runs.empty()) return reply;
      reply.set_parcel_bytes(unsent.bytes.size());
      const auto parcel =
          encode_parcel({.runs = std::move(unsent.runs), .bytes = std::move(unsent.bytes)});
      reply.set_parcel(parcel.data(), parcel.size());
      return reply;
    }
    case bus::DiskRequest::kLimitWrites:
      if (!begun.move) return fail(Errc::kInvalid, "the disk does not move");
      disk_.limit_writes(request.limit_writes().bytes_per_s());
      return reply;
    case bus::DiskRequest::kEndMove:
      if (std::exchange(begun.move, false)) end_move();
      return reply;
    case bus::DiskRequest::kPutPages: {
      const auto parcel =
          TRY(decode_parcel(as_bytes(request.put_pages().parcel()), overlay.root().pages()));
      TRY(overlay.put(parcel.runs, parcel.bytes));
      return reply;
    }
    case bus::DiskRequest::kFlush:
      TRY(overlay.flush());
      return reply;
    case bus::DiskRequest::kAdoptCommit: {
      const VersionId version = TRY(read_version(request.adopt_commit().version()));
      TRY(overlay.adopt_commit(version));
      return reply;
    }
    default:
      return fail(Errc::kInvalid, "a disk's process does not answer that");
  }
}

DiskService::DiskService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DiskService::~DiskService() = default;

Result<std::unique_ptr<DiskService>> DiskService::create(const std::string& path, Disk& disk) {
  auto impl = std::make_unique<Impl>(TRY(listen_store(path)), disk);
  return std::unique_ptr<DiskService>(new DiskService(std::move(impl)));
}

Result<DiskConnection> DiskConnection::open(const std::string& path) {
  return DiskConnection(TRY(connect_store(path)));
}

Result<bus::DiskReply> DiskConnection::call(const bus::DiskRequest& request, Deadline deadline) {
  TRY(send_frame(socket_.get(), as_bytes(request.SerializeAsString()), -1, deadline));
  const StoreFrame frame = TRY(receive_frame(socket_.get(), deadline));
  bus::DiskReply reply;
  if (!reply.ParseFromArray(frame.bytes.data(), static_cast<int>(frame.bytes.size()))) {
    return fail(Errc::kCorrupt, "a disk's process answered with something else");
  }
  if (reply.has_failure()) return tl::unexpected(read_failure(reply.failure()));
  return reply;
}

}  // namespace samepage::imagestore
