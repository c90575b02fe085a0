#include "core/vm_metadata.h"

namespace samepage {
namespace {

constexpr std::size_t kNameSizeMax = 64;
constexpr std::size_t kTemplateIdSize = 32;
constexpr std::string_view kNameCharacters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// Between the element's tags; empty when there are none.
std::string_view text_in(std::string_view element) {
  const std::size_t open_end = element.find('>');
  if (open_end == std::string_view::npos) return {};
  const std::size_t close = element.find('<', open_end);
  if (close == std::string_view::npos) return {};
  return trimmed(element.substr(open_end + 1, close - open_end - 1));
}

}  // namespace

std::string sharing_domain_in(std::string_view element) {
  const std::string_view name = text_in(element);
  if (name.size() > kNameSizeMax) return {};
  if (name.find_first_not_of(kNameCharacters) != std::string_view::npos) return {};
  return std::string(name);
}

std::string template_id_in(std::string_view element) {
  const std::string_view id = text_in(element);
  if (id.size() != kTemplateIdSize) return {};
  if (id.find_first_not_of("0123456789abcdef") != std::string_view::npos) return {};
  return std::string(id);
}

}  // namespace samepage
