#pragma once

#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace samepage::cli {

/// Rows of text under a header, in columns that are as wide as they need to be. When the last
/// column would pass the terminal's edge, its text goes on below itself.
/// Names that come from hosts and guests cannot steer the terminal: control characters are shown
/// as '?'.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string name;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// As many cells as columns.
  void add_row(std::vector<std::string> cells);

  /// `width` in characters; 0 for no limit.
  void print(std::ostream& out, std::size_t width) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// Printable: control characters replaced by '?'.
std::string printable(std::string_view text);

/// Characters that `text`, UTF-8, takes on a terminal; combining and wide ones are not told apart.
std::size_t display_width(std::string_view text);

}  // namespace samepage::cli
