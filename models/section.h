// One object of a model file's header, with messages that say where a value stands.
#pragma once

#include <nlohmann/json.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "engine/error.h"

namespace xlate {

/// A value of the header for a message: short, whatever it is. Arrays and objects are named only:
/// they may be nested without end.
std::string brief(const nlohmann::json& value);

/// A choice's names and values.
template <class T, std::size_t N>
using Choices = std::array<std::pair<const char*, T>, N>;

class Section {
 public:
  static constexpr std::int64_t kMaxSize =
      std::int64_t{1} << 24;  // of any one number: products of two of them stay in 64 bits

  /// header[name]. Throws Error where that is no object.
  Section(const nlohmann::json& header, const std::string& name, const std::string& file)
      : Section(header, name, name, file) {}
  /// The object `key` inside this one.
  Section inside(const char* key) const { return Section(*object_, key, path_ + "." + key, file_); }
  /// An object that stands in an array of this one.
  Section element(const nlohmann::json& value, const char* key) const {
    if (!value.is_object()) wrong(key, "an array of objects", value);
    return Section(value, path_ + "." + key, file_, 0);
  }

  bool has(const char* key) const { return object_->contains(key); }
  /// Throws Error where there is no such key; so do those below, and where the value is none of
  /// those expected.
  const nlohmann::json& at(const char* key) const;
  std::int64_t integer(const char* key, std::int64_t least, std::int64_t most) const {
    return integer(at(key), key, least, most);
  }
  std::int64_t integer(const nlohmann::json& value, const char* key, std::int64_t least,
                       std::int64_t most) const;
  std::int32_t id(const char* key, std::int64_t last) const {
    return static_cast<std::int32_t>(integer(key, 0, last));
  }
  double number(const char* key, double least, double most) const;
  /// False where there is no such key.
  bool flag(const char* key) const;
  template <class T, std::size_t N>
  T choice(const char* key, const Choices<T, N>& choices) const {
    std::string names;
    for (const auto& [name, choice] : choices) {
      if (at(key) == name) return choice;
      names += names.empty() ? name : fmt::format(" or {}", name);
    }
    wrong(key, names, at(key));
  }
  void expect(const char* key, const char* text) const {
    if (at(key) != text) wrong(key, fmt::format("'{}'", text), at(key));
  }
  [[noreturn]] void wrong(const char* key, const std::string& expected,
                          const nlohmann::json& found) const {
    fail("{}: '{}.{}' is {}, expected {}", file_, path_, key, brief(found), expected);
  }
  const std::string& path() const { return path_; }
  const std::string& file() const { return file_; }

 private:
  Section(const nlohmann::json& parent, const std::string& key, std::string path,
          const std::string& file);
  Section(const nlohmann::json& object, std::string path, const std::string& file, int)
      : object_(&object), path_(std::move(path)), file_(file) {}

  const nlohmann::json* object_;
  std::string path_;
  const std::string& file_;
};

}  // namespace xlate
