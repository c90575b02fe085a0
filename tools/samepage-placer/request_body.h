#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/result.h"

namespace samepage::control {

/// A request's JSON object. Errors of every method: kInvalid, naming the member.
class RequestBody {
 public:
  /// An empty text is an empty object.
  static Result<RequestBody> parse(std::string_view text);

  bool has(const std::string& member) const;
  Result<std::string> text(const std::string& member) const;

  /// Absent is `otherwise`.
  Result<std::string> text_or(const std::string& member, const std::string& otherwise) const;

  /// Absent is an empty list; more than 1,000 texts are an error.
  Result<std::vector<std::string>> texts(const std::string& member) const;

  /// A list of objects; it must be there, with 1,000 at most.
  Result<std::vector<RequestBody>> objects(const std::string& member) const;

  /// Absent is `otherwise`.
  Result<bool> flag(const std::string& member, bool otherwise) const;

  /// Of any sign; absent is nothing, infinite an error.
  Result<std::optional<double>> number(const std::string& member) const;

  /// An object of numbers of any sign; absent is none.
  Result<std::map<std::string, double>> numbers(const std::string& member) const;

  /// Absent is nothing; infinite or negative is an error.
  Result<std::optional<double>> quantity(const std::string& member) const;

  /// An object of quantities; absent is nothing.
  Result<std::optional<std::map<std::string, double>>> quantities(const std::string& member) const;

  /// kInvalid: the object has a member that is not among these: a typo must not be ignored.
  Result<void> only(std::initializer_list<std::string_view> members) const;

 private:
  explicit RequestBody(std::shared_ptr<const nlohmann::json> object);

  std::shared_ptr<const nlohmann::json> object_;
};

}  // namespace samepage::control
