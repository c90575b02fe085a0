#include "tools/samepage/qmp_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>

namespace samepage::cli {
namespace {

using nlohmann::json;

constexpr std::size_t kLineMax = 1U << 20U;

}  // namespace

Result<std::string> QmpClient::read_line(Deadline deadline) {
  while (true) {
    const std::size_t end = pending_.find('\n');
    if (end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    if (pending_.size() > kLineMax) return fail(Errc::kUnavailable, "QEMU's answer has no end");
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Deadline::clock::now());
    pollfd waits{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waits, 1, static_cast<int>(std::max<long long>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return fail(Errc::kTimedOut, "QEMU does not answer");
    std::array<char, 4096> buffer{};
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) return fail(Errc::kUnavailable, "QEMU has ended");
    pending_.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

Result<void> QmpClient::execute(const std::string& command, Deadline deadline) {
  const std::string request = json{{"execute", command}}.dump() + "\n";
  const ssize_t sent = ::send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(request.size())) {
    return fail(Errc::kUnavailable, "QEMU has ended");
  }
  while (true) {
    const json answer = json::parse(TRY(read_line(deadline)), nullptr, false);
    if (!answer.is_object()) return fail(Errc::kUnavailable, "QEMU's answer is no JSON");
    if (answer.contains("return")) return {};
    if (answer.contains("error")) {
      return fail(Errc::kInvalid, command + ": " + answer["error"].value("desc", "refused"));
    }
  }
}

Result<QmpClient> QmpClient::greet(Fd socket, Deadline deadline) {
  QmpClient client(std::move(socket));
  TRY(client.read_line(deadline));
  TRY(client.execute("qmp_capabilities", deadline));
  return client;
}

}  // namespace samepage::cli
