#include "fingerprinter/vmcoreinfo.h"

#include <algorithm>
#include <charconv>

namespace samepage::fingerprinter {
namespace {

constexpr std::string_view kFirstKey = "OSRELEASE=";

std::string_view as_text(PageView page) {
  const std::string_view text(reinterpret_cast<const char*>(page.data()), page.size());
  return text.substr(0, text.find('\0'));
}

template <class T>
std::optional<T> parse(std::string_view text, int base) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::vector<Vmcoreinfo> Vmcoreinfo::find(const RamImage& ram) {
  std::vector<Vmcoreinfo> found;
  for (std::size_t i = 0; i < ram.pages(); ++i) {
    const std::string_view text = as_text(ram.page(i));
    if (text.starts_with(kFirstKey)) found.emplace_back(ram.page(i));
  }
  return found;
}

Vmcoreinfo::Vmcoreinfo(PageView page) {
  std::string_view text = as_text(page);
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    lines_.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
}

std::string_view Vmcoreinfo::text(std::string_view key) const {
  const auto found = lines_.find(key);
  return found == lines_.end() ? std::string_view() : found->second;
}

std::optional<std::uint64_t> Vmcoreinfo::symbol(std::string_view name) const {
  return parse<std::uint64_t>(text("SYMBOL(" + std::string(name) + ")"), 16);
}

std::optional<std::int64_t> Vmcoreinfo::number(std::string_view name) const {
  return parse<std::int64_t>(text("NUMBER(" + std::string(name) + ")"), 10);
}

std::uint64_t Vmcoreinfo::kernel_offset() const {
  return parse<std::uint64_t>(text("KERNELOFFSET"), 16).value_or(0);
}

}  // namespace samepage::fingerprinter
