#pragma once

#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>

namespace samepage::cli {

/// A line at the bottom of a terminal that is redrawn in place, with sentences scrolling above it.
/// Where the output is no terminal there are only the sentences.
class ProgressBar {
 public:
  /// `width` in characters; 0 for no terminal. Borrows `out`.
  ProgressBar(std::ostream& out, std::size_t width) : out_(out), width_(width) {}
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() { clear(); }

  void show(std::string_view label, double fraction, std::string_view detail);
  void say(std::string_view sentence);
  void clear();

 private:
  std::ostream& out_;
  std::size_t width_;
  std::string line_;  // As it is on the terminal now.
};

/// "web3 [#####-----]  50 %  detail", in at most `width` characters.
std::string progress_line(std::string_view label, double fraction, std::string_view detail,
                          std::size_t width);

}  // namespace samepage::cli
