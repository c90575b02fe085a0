#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <libnbd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/handle.h"
#include "tools/benchmarks/store/reader.h"

namespace samepage::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

double since(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::micro>(SteadyClock::now() - start).count();
}

Result<Fd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::ranges::copy(path, std::begin(address.sun_path));
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return fail(Errc::kUnavailable, "nobody listens at " + path);
  }
  return socket;
}

std::string key_of(const Chunk& chunk) {
  return "c" + std::to_string(chunk.bytes) + "-" + std::to_string(chunk.offset);
}

/// A buffered stream of memcached's text protocol.
class MemcachedStream {
 public:
  explicit MemcachedStream(Fd socket) : socket_(std::move(socket)), buffer_(1U << 20U) {}

  Result<void> send(std::span<const char> bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return fail(Errc::kUnavailable, "memcached went away");
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return {};
  }

  Result<std::string_view> line() {
    while (true) {
      const auto* const found =
          static_cast<const char*>(std::memchr(&buffer_[begin_], '\n', end_ - begin_));
      if (found != nullptr) {
        const std::string_view text(&buffer_[begin_],
                                    static_cast<std::size_t>(found - &buffer_[begin_]));
        begin_ += text.size() + 1;
        return text;
      }
      if (begin_ > 0) {
        std::memmove(buffer_.data(), &buffer_[begin_], end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
      }
      const ssize_t got = ::recv(socket_.get(), &buffer_[end_], 4'096, 0);
      if (got <= 0) return fail(Errc::kUnavailable, "memcached went away");
      end_ += static_cast<std::size_t>(got);
    }
  }

  /// The bytes of a value go straight to where they belong.
  Result<void> take(std::span<char> into) {
    const std::size_t here = std::min(into.size(), end_ - begin_);
    std::memcpy(into.data(), &buffer_[begin_], here);
    begin_ += here;
    into = into.subspan(here);
    while (!into.empty()) {
      const ssize_t got = ::recv(socket_.get(), into.data(), into.size(), MSG_WAITALL);
      if (got <= 0) return fail(Errc::kUnavailable, "memcached went away");
      into = into.subspan(static_cast<std::size_t>(got));
    }
    return {};
  }

 private:
  Fd socket_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

class MemcachedReader final : public Reader {
 public:
  explicit MemcachedReader(MemcachedStream stream) : stream_(std::move(stream)) {}

  Result<std::uint64_t> read(std::span<const Chunk> chunks, std::size_t depth,
                             const Done& done) override {
    std::uint64_t bytes = 0;
    while (!chunks.empty()) {
      const auto batch = chunks.first(std::min(depth, chunks.size()));
      chunks = chunks.subspan(batch.size());
      const auto start = SteadyClock::now();
      std::string request = "get";
      for (const Chunk& chunk : batch) request += " " + key_of(chunk);
      TRY(stream_.send(request + "\r\n"));
      for (std::size_t i = 0; i < batch.size(); ++i) {
        bytes += TRY(take_value());
        done(since(start));
      }
      const auto end = TRY(stream_.line());
      if (!end.starts_with("END")) return fail(Errc::kCorrupt, "memcached says too much");
    }
    return bytes;
  }

 private:
  Result<std::size_t> take_value() {
    const auto header = TRY(stream_.line());
    if (!header.starts_with("VALUE")) return fail(Errc::kNotFound, "memcached lacks a chunk");
    const std::string_view digits = header.substr(header.rfind(' ') + 1);
    std::size_t size = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), size);
    into_.resize(std::max(into_.size(), size + 2));
    TRY(stream_.take(std::span(into_).first(size + 2)));
    return size;
  }

  MemcachedStream stream_;
  std::vector<char> into_;
};

/// Reads over NBD, `depth` at a time.
class NbdReader final : public Reader {
 public:
  using Connection = Handle<nbd_handle, nbd_close>;

  NbdReader(Connection connection, bool writes)
      : connection_(std::move(connection)), writes_(writes) {}

  Result<std::uint64_t> read(std::span<const Chunk> chunks, std::size_t depth,
                             const Done& done) override {
    struct Slot {
      std::vector<std::byte> bytes;
      std::int64_t cookie = -1;
      SteadyClock::time_point start;
    };
    std::vector<Slot> slots(depth);
    std::size_t next = 0;
    std::size_t ended = 0;
    while (ended < chunks.size()) {
      for (Slot& slot : slots) {
        if (slot.cookie >= 0) {
          const int state =
              nbd_aio_command_completed(connection_.get(), static_cast<std::uint64_t>(slot.cookie));
          if (state < 0) return fail(Errc::kIo, nbd_get_error());
          if (state == 0) continue;
          done(since(slot.start));
          slot.cookie = -1;
          ++ended;
        }
        if (next == chunks.size()) continue;
        const Chunk& chunk = chunks[next++];
        if (slot.bytes.size() < chunk.bytes) slot.bytes.assign(chunk.bytes, std::byte{0x5a});
        slot.start = SteadyClock::now();
        slot.cookie = begin(slot.bytes.data(), chunk);
        if (slot.cookie < 0) return fail(Errc::kIo, nbd_get_error());
      }
      if (ended < chunks.size() && nbd_poll(connection_.get(), -1) < 0) {
        return fail(Errc::kIo, nbd_get_error());
      }
    }
    if (writes_ && nbd_flush(connection_.get(), 0) < 0) return fail(Errc::kIo, nbd_get_error());
    return total_bytes(chunks);
  }

 private:
  std::int64_t begin(std::byte* bytes, const Chunk& chunk) {
    nbd_handle* const nbd = connection_.get();
    if (writes_) {
      return nbd_aio_pwrite(nbd, bytes, chunk.bytes, chunk.offset, NBD_NULL_COMPLETION, 0);
    }
    return nbd_aio_pread(nbd, bytes, chunk.bytes, chunk.offset, NBD_NULL_COMPLETION, 0);
  }

  Connection connection_;
  const bool writes_;
};

class FullCopy final : public Reader {
 public:
  FullCopy(Fd image, std::string folder, bool is_durable)
      : image_(std::move(image)), folder_(std::move(folder)), is_durable_(is_durable) {}

  Result<std::uint64_t> read(std::span<const Chunk>, std::size_t, const Done& done) override {
    const auto start = SteadyClock::now();
    const Fd& copy =
        copies_.emplace_back(::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!copy) return fail(Errc::kIo, folder_ + " takes no file");
    const off_t size = ::lseek(image_.get(), 0, SEEK_END);
    std::vector<std::byte> buffer(1U << 20U);
    std::uint64_t bytes = 0;
    off_t at = ::lseek(image_.get(), 0, SEEK_DATA);
    while (at >= 0 && at < size) {
      const off_t hole = ::lseek(image_.get(), at, SEEK_HOLE);
      while (at < hole) {
        const auto piece = std::min<off_t>(hole - at, static_cast<off_t>(buffer.size()));
        const ssize_t got =
            ::pread(image_.get(), buffer.data(), static_cast<std::size_t>(piece), at);
        if (got <= 0 ||
            ::pwrite(copy.get(), buffer.data(), static_cast<std::size_t>(got), at) != got) {
          return fail(Errc::kIo, "the copy failed");
        }
        at += got;
        bytes += static_cast<std::uint64_t>(got);
      }
      at = ::lseek(image_.get(), at, SEEK_DATA);
    }
    if (is_durable_ && ::fdatasync(copy.get()) != 0) return fail(Errc::kIo, "the flush failed");
    done(since(start));
    return bytes;
  }

 private:
  Fd image_;
  std::string folder_;
  bool is_durable_;
  std::vector<Fd> copies_;  ///< Kept to the end, as who copies an image means to use the copy.
};

}  // namespace

Result<std::unique_ptr<Reader>> open_memcached(const std::string& socket) {
  return std::make_unique<MemcachedReader>(MemcachedStream(TRY(connect_to(socket))));
}

Result<void> fill_memcached(const std::string& socket, const std::string& image,
                            std::span<const Chunk> chunks) {
  MemcachedStream stream(TRY(connect_to(socket)));
  const Fd file(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<char> bytes;
  for (const Chunk& chunk : chunks) {
    const std::string head =
        "set " + key_of(chunk) + " 0 0 " + std::to_string(chunk.bytes) + "\r\n";
    bytes.assign(head.begin(), head.end());
    bytes.resize(head.size() + chunk.bytes);
    const ssize_t got =
        ::pread(file.get(), &bytes[head.size()], chunk.bytes, static_cast<off_t>(chunk.offset));
    if (got != static_cast<ssize_t>(chunk.bytes)) return fail(Errc::kIo, "the image is short");
    bytes.push_back('\r');
    bytes.push_back('\n');
    TRY(stream.send(bytes));
    const auto answer = TRY(stream.line());
    if (!answer.starts_with("STORED")) {
      return fail(Errc::kIo, "memcached does not store: " + std::string(answer));
    }
  }
  return {};
}

Result<std::unique_ptr<Reader>> open_nbd(const std::string& socket, bool writes) {
  NbdReader::Connection connection(nbd_create());
  if (!connection || nbd_connect_unix(connection.get(), socket.c_str()) < 0) {
    return fail(Errc::kUnavailable, std::string("connect to NBD: ") + nbd_get_error());
  }
  return std::make_unique<NbdReader>(std::move(connection), writes);
}

Result<std::unique_ptr<Reader>> open_full_copy(const std::string& image, const std::string& folder,
                                               bool is_durable) {
  Fd file(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(Errc::kNotFound, image + " cannot be opened");
  return std::make_unique<FullCopy>(std::move(file), folder, is_durable);
}

}  // namespace samepage::bench
