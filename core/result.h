#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include <tl/expected.hpp>

#include "core/error.h"

namespace samepage {

/// A value, or the reason there is none. A class, not an alias, because tl::expected 1.0 (Debian
/// 12) lacks [[nodiscard]], and a dropped Result is a swallowed error.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

/// The value of a successful result; needed because tl::expected<void> has no value().
template <class T>
T take(Result<T>&& result) {
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

inline tl::unexpected<Error> fail(Errc code, std::string message) {
  return tl::unexpected<Error>(Error(code, std::move(message)));
}

}  // namespace samepage

/// Yields the value of `expr`, or returns its error from the enclosing function.
/// The only control-flow macro in the tree. GNU statement expression; GCC and Clang.
#define TRY(expr)                                                          \
  __extension__({                                                          \
    auto try_result = (expr);                                              \
    if (!try_result) return tl::unexpected(std::move(try_result).error()); \
    ::samepage::take(std::move(try_result));                               \
  })
