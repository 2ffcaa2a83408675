// Finds and checks the values of a Section.
#include "models/section.h"

namespace xlate {

using nlohmann::json;

std::string brief(const json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  const std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "…" : text;
}

Section::Section(const json& parent, const std::string& key, std::string path,
                 const std::string& file)
    : path_(std::move(path)), file_(file) {
  const auto found = parent.find(key);
  if (found == parent.end() || !found->is_object())
    fail("{}: header has no object '{}'", file, path_);
  object_ = &*found;
}

const json& Section::at(const char* key) const {
  const auto found = object_->find(key);
  if (found == object_->end()) fail("{}: header has no '{}.{}'", file_, path_, key);
  return *found;
}

std::int64_t Section::integer(const json& value, const char* key, std::int64_t least,
                              std::int64_t most) const {
  if (!value.is_number_integer() || value.get<std::int64_t>() < least ||
      value.get<std::int64_t>() > most) {
    wrong(key, fmt::format("a whole number from {} to {}", least, most), value);
  }
  return value.get<std::int64_t>();
}

double Section::number(const char* key, double least, double most) const {
  const json& value = at(key);
  if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
    wrong(key, fmt::format("a number from {} to {}", least, most), value);
  }
  return value.get<double>();
}

std::string Section::text(const char* key, std::size_t longest) const {
  const json& value = at(key);
  if (!value.is_string() || value.get_ref<const std::string&>().size() > longest)
    wrong(key, fmt::format("a text of at most {} bytes", longest), value);
  return value.get<std::string>();
}

bool Section::flag(const char* key) const {
  if (!has(key)) return false;
  if (!at(key).is_boolean()) wrong(key, "true or false", at(key));
  return at(key).get<bool>();
}

}  // namespace xlate
