// Reads one object of a model file's header, with messages that say where in the header a value is.
#pragma once

#include <nlohmann/json.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "engine/error.h"

namespace xlate {

/// Returns a value of the header as a message shows it, in at most 61 characters. Arrays and
/// objects are only named, because they may be nested very deeply.
std::string brief(const nlohmann::json& value);

/// Lists the names that a key may have as its value, and what each of them means.
template <class T, std::size_t N>
using Choices = std::array<std::pair<const char*, T>, N>;

/// Refers to one object of the header. Its functions read the value of a key, and throw Error if it
/// is not what was expected; the message names the file, the key with its path
/// (network.encoder.width), what was found and what was expected. The header and the string `file`
/// must outlive the object.
class Section {
 public:
  /// Bounds every size of a description, so that the product of two of them fits into 64 bits.
  static constexpr std::int64_t kMaxSize = std::int64_t{1} << 24;

  /// Refers to header[name]. Throws Error if that is missing or no object.
  Section(const nlohmann::json& header, const std::string& name, const std::string& file)
      : Section(header, name, name, file) {}
  /// Returns the object under `key` of this one. Throws Error if that is missing or no object.
  Section inside(const char* key) const { return Section(*object_, key, path_ + "." + key, file_); }
  /// Returns `value`, an element of the array under `key`. Throws Error if it is no object.
  Section element(const nlohmann::json& value, const char* key) const {
    if (!value.is_object()) wrong(key, "an array of objects", value);
    return Section(value, path_ + "." + key, file_, 0);
  }

  bool has(const char* key) const { return object_->contains(key); }
  /// Returns the value under `key`. Throws Error if there is none.
  const nlohmann::json& at(const char* key) const;
  /// Returns the whole number under `key`. Throws Error if there is none from `least` to `most`.
  std::int64_t integer(const char* key, std::int64_t least, std::int64_t most) const {
    return integer(at(key), key, least, most);
  }
  /// Returns `value`, an element of the array under `key`. Throws Error unless it is a whole number
  /// from `least` to `most`.
  std::int64_t integer(const nlohmann::json& value, const char* key, std::int64_t least,
                       std::int64_t most) const;
  /// Returns the token id under `key`. Throws Error if there is none from 0 to `last`.
  std::int32_t id(const char* key, std::int64_t last) const {
    return static_cast<std::int32_t>(integer(key, 0, last));
  }
  /// Returns the number under `key`. Throws Error if there is none from `least` to `most`.
  double number(const char* key, double least, double most) const;
  /// Returns the boolean under `key`, or false if there is no such key. Throws Error if the value
  /// is no boolean.
  bool flag(const char* key) const;
  /// Returns the text under `key`. Throws Error if there is none of at most `longest` bytes.
  std::string text(const char* key, std::size_t longest) const;
  /// Returns what the name under `key` means. Throws Error if there is none of the choices' names.
  template <class T, std::size_t N>
  T choice(const char* key, const Choices<T, N>& choices) const {
    std::string names;
    for (const auto& [name, choice] : choices) {
      if (at(key) == name) return choice;
      names += names.empty() ? name : fmt::format(" or {}", name);
    }
    wrong(key, names, at(key));
  }
  /// Throws Error unless the value under `key` is `text`.
  void expect(const char* key, const char* text) const {
    if (at(key) != text) wrong(key, fmt::format("'{}'", text), at(key));
  }
  /// Throws Error which says that `found`, the value under `key`, is not `expected`.
  [[noreturn]] void wrong(const char* key, const std::string& expected,
                          const nlohmann::json& found) const {
    fail("{}: '{}.{}' is {}, expected {}", file_, path_, key, brief(found), expected);
  }
  const std::string& path() const { return path_; }
  const std::string& file() const { return file_; }

 private:
  Section(const nlohmann::json& parent, const std::string& key, std::string path,
          const std::string& file);
  // Refers to the object itself. The int only tells this constructor from the public one.
  Section(const nlohmann::json& object, std::string path, const std::string& file, int)
      : object_(&object), path_(std::move(path)), file_(file) {}

  const nlohmann::json* object_;
  std::string path_;
  const std::string& file_;
};

}  // namespace xlate
