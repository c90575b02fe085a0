#include "core/vm_metadata.h"

namespace samepage {
namespace {

constexpr std::size_t kNameSizeMax = 64;
constexpr std::string_view kNameCharacters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace

std::string sharing_domain_in(std::string_view element) {
  const std::size_t open_end = element.find('>');
  if (open_end == std::string_view::npos) return {};
  const std::size_t close = element.find('<', open_end);
  if (close == std::string_view::npos) return {};
  const std::string_view name = trimmed(element.substr(open_end + 1, close - open_end - 1));
  if (name.size() > kNameSizeMax) return {};
  if (name.find_first_not_of(kNameCharacters) != std::string_view::npos) return {};
  return std::string(name);
}

}  // namespace samepage
