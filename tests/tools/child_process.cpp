#include "tests/tools/child_process.h"

#include <array>
#include <chrono>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/check.h"
#include "core/clock.h"

namespace samepage::testing {
namespace {

struct Pipe {
  Fd read_end;
  Fd write_end;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  CHECK(::pipe2(ends.data(), O_CLOEXEC) == 0);
  return {.read_end = Fd(ends[0]), .write_end = Fd(ends[1])};
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command,
                           const std::map<std::string, std::string>& environment) {
  Pipe out = make_pipe();
  Pipe err = make_pipe();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.write_end.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.write_end.get(), STDERR_FILENO);
  std::vector<std::string> arguments = command;
  std::vector<std::string> variables;
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  for (char** variable = environ; *variable != nullptr; ++variable)
    variables.emplace_back(*variable);
  CHECK(::posix_spawn(&pid_, command.front().c_str(), &actions, nullptr, pointers(arguments).data(),
                      pointers(variables).data()) == 0);
  posix_spawn_file_actions_destroy(&actions);
  out_ = std::move(out.read_end);
  err_ = std::move(err.read_end);
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void ChildProcess::interrupt() const {
  ::kill(pid_, SIGINT);
}

bool ChildProcess::wait_for_err(const std::string& text) {
  const Deadline deadline = Deadline::clock::now() + std::chrono::seconds(10);
  while (output_.err.find(text) == std::string::npos) {
    if (Deadline::clock::now() > deadline || !read_more(100)) return false;
  }
  return true;
}

ChildProcess::Output ChildProcess::finish() {
  const Deadline deadline = Deadline::clock::now() + std::chrono::seconds(30);
  bool ended = false;
  while (!ended && Deadline::clock::now() < deadline) ended = !read_more(100);
  if (!ended) ::kill(pid_, SIGKILL);
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  if (WIFEXITED(status)) output_.exit_code = WEXITSTATUS(status);
  return output_;
}

/// False once both outputs are closed.
bool ChildProcess::read_more(int timeout_ms) {
  std::array<pollfd, 2> ready{{{.fd = out_.get(), .events = POLLIN, .revents = 0},
                               {.fd = err_.get(), .events = POLLIN, .revents = 0}}};
  if (::poll(ready.data(), ready.size(), timeout_ms) <= 0) return true;
  for (auto [fd, text, state] : {std::tuple{&out_, &output_.out, ready[0].revents},
                                 std::tuple{&err_, &output_.err, ready[1].revents}}) {
    if (state == 0) continue;
    std::array<char, 4096> buffer{};
    const ssize_t size = ::read(fd->get(), buffer.data(), buffer.size());
    if (size > 0) text->append(buffer.data(), static_cast<std::size_t>(size));
    if (size <= 0) fd->reset();
  }
  return out_ || err_;
}

ChildProcess::Output run(const std::vector<std::string>& command,
                         const std::map<std::string, std::string>& environment) {
  return ChildProcess(command, environment).finish();
}

}  // namespace samepage::testing
