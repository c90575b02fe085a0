#include "tools/samepage/table.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace samepage::cli {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kWrappedWidthMin = 20;

bool starts_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
}

/// The bytes of `text` that take at most `width` characters, cut at a space when there is one.
std::size_t line_length(std::string_view text, std::size_t width) {
  if (display_width(text) <= width) return text.size();
  std::size_t bytes = 0;
  for (std::size_t characters = 0; bytes < text.size(); ++bytes) {
    if (starts_character(text[bytes]) && ++characters > width) break;
  }
  const std::size_t space = text.substr(0, bytes + 1).rfind(' ');
  return space != std::string_view::npos && space > 0 ? space : bytes;
}

std::string padded(std::string_view text, std::size_t width, Table::Align align) {
  const std::string space(width - std::min(width, display_width(text)), ' ');
  return align == Table::Align::kRight ? space + std::string(text) : std::string(text) + space;
}

}  // namespace

void Table::add_row(std::vector<std::string> cells) {
  CHECK(cells.size() == columns_.size());
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

void Table::print(std::ostream& out, std::size_t width) const {
  std::vector<std::size_t> widths;
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    std::size_t widest = display_width(columns_[column].name);
    for (const auto& row : rows_) widest = std::max(widest, display_width(row[column]));
    widths.push_back(widest);
  }
  std::size_t indent = 0;
  for (std::size_t column = 0; column + 1 < widths.size(); ++column) {
    indent += widths[column] + kGap;
  }
  const bool wraps =
      width != 0 && indent + kWrappedWidthMin <= width && columns_.back().align == Align::kLeft;
  const std::size_t last_width = wraps ? width - indent : std::string::npos;

  const auto print_row = [&](const std::vector<std::string>& cells) {
    for (std::size_t column = 0; column + 1 < cells.size(); ++column) {
      out << padded(cells[column], widths[column], columns_[column].align)
          << std::string(kGap, ' ');
    }
    std::string_view rest = cells.back();
    if (columns_.back().align == Align::kRight) {
      out << padded(rest, widths.back(), Align::kRight) << '\n';
      return;
    }
    std::size_t length = line_length(rest, last_width);
    out << rest.substr(0, length) << '\n';
    for (rest.remove_prefix(length); !rest.empty(); rest.remove_prefix(length)) {
      if (rest.front() == ' ') rest.remove_prefix(1);
      length = line_length(rest, last_width);
      out << std::string(indent, ' ') << rest.substr(0, length) << '\n';
    }
  };

  std::vector<std::string> header;
  for (const Column& column : columns_) header.push_back(column.name);
  print_row(header);
  for (const auto& row : rows_) print_row(row);
}

std::string printable(std::string_view text) {
  std::string result(text);
  std::replace_if(
      result.begin(), result.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, '?');
  return result;
}

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts_character));
}

}  // namespace samepage::cli
