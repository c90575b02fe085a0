#pragma once

#include <map>
#include <string>
#include <vector>

#include <sys/types.h>

#include "core/fd.h"

namespace samepage::testing {

/// A program under test: its output is collected, and it never outlives the test.
class ChildProcess {
 public:
  struct Output {
    int exit_code = -1;  ///< -1: it did not end by itself in time.
    std::string out;
    std::string err;
  };

  /// `environment` comes on top of the test's own.
  ChildProcess(const std::vector<std::string>& command,
               const std::map<std::string, std::string>& environment);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  void interrupt() const;

  /// False when stderr has not held `text` within ten seconds.
  bool wait_for_err(const std::string& text);

  /// Collects everything until the program ended, at most half a minute.
  Output finish();

 private:
  bool read_more(int timeout_ms);

  pid_t pid_ = -1;
  Fd out_;
  Fd err_;
  Output output_;
};

/// Runs `command` to its end.
ChildProcess::Output run(const std::vector<std::string>& command,
                         const std::map<std::string, std::string>& environment = {});

}  // namespace samepage::testing
