#include "tools/samepage-placer/request_body.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

namespace samepage::control {

RequestBody::RequestBody(std::shared_ptr<const nlohmann::json> object)
    : object_(std::move(object)) {}

Result<RequestBody> RequestBody::parse(std::string_view text) {
  auto object = nlohmann::json::object();
  if (!text.empty()) object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return fail(Errc::kInvalid, "the request's body is no JSON object");
  return RequestBody(std::make_shared<const nlohmann::json>(std::move(object)));
}

Result<std::string> RequestBody::text(const std::string& member) const {
  const auto found = object_->find(member);
  if (found == object_->end() || !found->is_string()) {
    return fail(Errc::kInvalid, "the request needs \"" + member + "\", a text");
  }
  return found->get<std::string>();
}

Result<std::string> RequestBody::text_or(const std::string& member,
                                         const std::string& otherwise) const {
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) return otherwise;
  return text(member);
}

bool RequestBody::has(const std::string& member) const {
  return object_->contains(member);
}

Result<std::vector<std::string>> RequestBody::texts(const std::string& member) const {
  constexpr std::size_t kTextsMax = 1'000;
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) return std::vector<std::string>();
  const bool sound = found->is_array() && found->size() <= kTextsMax &&
                     std::all_of(found->begin(), found->end(),
                                 [](const nlohmann::json& each) { return each.is_string(); });
  if (!sound) return fail(Errc::kInvalid, "\"" + member + "\" must be a list of texts");
  return found->get<std::vector<std::string>>();
}

Result<std::vector<RequestBody>> RequestBody::objects(const std::string& member) const {
  constexpr std::size_t kObjectsMax = 1'000;
  const auto found = object_->find(member);
  const bool sound = found != object_->end() && found->is_array() && found->size() <= kObjectsMax &&
                     std::all_of(found->begin(), found->end(),
                                 [](const nlohmann::json& each) { return each.is_object(); });
  if (!sound) return fail(Errc::kInvalid, "\"" + member + "\" must be a list of objects");
  std::vector<RequestBody> objects;
  for (const nlohmann::json& each : *found) {
    objects.push_back(RequestBody(std::make_shared<const nlohmann::json>(each)));
  }
  return objects;
}

Result<bool> RequestBody::flag(const std::string& member, bool otherwise) const {
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) return otherwise;
  if (!found->is_boolean()) {
    return fail(Errc::kInvalid, "\"" + member + "\" must be true or false");
  }
  return found->get<bool>();
}

Result<std::optional<std::map<std::string, double>>> RequestBody::quantities(
    const std::string& member) const {
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) {
    return std::optional<std::map<std::string, double>>();
  }
  std::map<std::string, double> values;
  if (!found->is_object()) return fail(Errc::kInvalid, "\"" + member + "\" must be an object");
  for (const auto& [name, value] : found->items()) {
    const double number = value.is_number() ? value.get<double>() : -1;
    if (!std::isfinite(number) || number < 0) {
      return fail(Errc::kInvalid,
                  "\"" + name + "\" of \"" + member + "\" must be a number, zero or more");
    }
    values[name] = number;
  }
  return std::optional(std::move(values));
}

Result<void> RequestBody::only(std::initializer_list<std::string_view> members) const {
  for (const auto& [name, value] : object_->items()) {
    if (std::find(members.begin(), members.end(), name) == members.end()) {
      return fail(Errc::kInvalid, "the request has \"" + name + "\", which means nothing here");
    }
  }
  return {};
}

Result<std::optional<double>> RequestBody::number(const std::string& member) const {
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) return std::optional<double>();
  if (!found->is_number() || !std::isfinite(found->get<double>())) {
    return fail(Errc::kInvalid, "\"" + member + "\" must be a number");
  }
  return std::optional<double>(found->get<double>());
}

Result<std::map<std::string, double>> RequestBody::numbers(const std::string& member) const {
  std::map<std::string, double> values;
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) return values;
  if (!found->is_object()) return fail(Errc::kInvalid, "\"" + member + "\" must be an object");
  for (const auto& [name, value] : found->items()) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      return fail(Errc::kInvalid, "\"" + name + "\" of \"" + member + "\" must be a number");
    }
    values[name] = value.get<double>();
  }
  return values;
}

Result<std::optional<double>> RequestBody::quantity(const std::string& member) const {
  const auto found = object_->find(member);
  if (found == object_->end() || found->is_null()) return std::optional<double>();
  const double value = found->is_number() ? found->get<double>() : -1;
  if (!std::isfinite(value) || value < 0) {
    return fail(Errc::kInvalid, "\"" + member + "\" must be a number, zero or more");
  }
  return std::optional<double>(value);
}

}  // namespace samepage::control
