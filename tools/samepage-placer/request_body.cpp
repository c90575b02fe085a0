#include "tools/samepage-placer/request_body.h"

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
  return has(member) ? text(member) : otherwise;
}

bool RequestBody::has(const std::string& member) const {
  return object_->contains(member);
}

Result<std::vector<std::string>> RequestBody::texts(const std::string& member) const {
  const auto found = object_->find(member);
  const bool is_list = found != object_->end() && found->is_array();
  std::vector<std::string> texts;
  for (const auto& text : is_list ? *found : nlohmann::json::array()) {
    if (text.is_string()) texts.push_back(text.get<std::string>());
  }
  if (!is_list || texts.size() != found->size()) {
    return fail(Errc::kInvalid, "the request needs \"" + member + "\", a list of texts");
  }
  return texts;
}

Result<bool> RequestBody::flag(const std::string& member) const {
  const auto found = object_->find(member);
  if (found == object_->end()) return false;
  if (!found->is_boolean()) return fail(Errc::kInvalid, "\"" + member + "\" must be true or false");
  return found->get<bool>();
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
