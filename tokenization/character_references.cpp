// Implements the reading and writing of character references.
#include "tokenization/character_references.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "tokenization/tag_syntax.h"

namespace xlate {
namespace {

using Name = std::pair<std::string_view, char32_t>;

// These are the names of HTML 4 and of XML, in the order of std::string_view.
// clang-format off
constexpr std::array<Name, 253> kNames{{
  {"AElig", 198}, {"Aacute", 193}, {"Acirc", 194}, {"Agrave", 192}, {"Alpha", 913},
  {"Aring", 197}, {"Atilde", 195}, {"Auml", 196}, {"Beta", 914}, {"Ccedil", 199}, {"Chi", 935},
  {"Dagger", 8225}, {"Delta", 916}, {"ETH", 208}, {"Eacute", 201}, {"Ecirc", 202},
  {"Egrave", 200}, {"Epsilon", 917}, {"Eta", 919}, {"Euml", 203}, {"Gamma", 915}, {"Iacute", 205},
  {"Icirc", 206}, {"Igrave", 204}, {"Iota", 921}, {"Iuml", 207}, {"Kappa", 922}, {"Lambda", 923},
  {"Mu", 924}, {"Ntilde", 209}, {"Nu", 925}, {"OElig", 338}, {"Oacute", 211}, {"Ocirc", 212},
  {"Ograve", 210}, {"Omega", 937}, {"Omicron", 927}, {"Oslash", 216}, {"Otilde", 213},
  {"Ouml", 214}, {"Phi", 934}, {"Pi", 928}, {"Prime", 8243}, {"Psi", 936}, {"Rho", 929},
  {"Scaron", 352}, {"Sigma", 931}, {"THORN", 222}, {"Tau", 932}, {"Theta", 920}, {"Uacute", 218},
  {"Ucirc", 219}, {"Ugrave", 217}, {"Upsilon", 933}, {"Uuml", 220}, {"Xi", 926}, {"Yacute", 221},
  {"Yuml", 376}, {"Zeta", 918}, {"aacute", 225}, {"acirc", 226}, {"acute", 180}, {"aelig", 230},
  {"agrave", 224}, {"alefsym", 8501}, {"alpha", 945}, {"amp", 38}, {"and", 8743}, {"ang", 8736},
  {"apos", 39}, {"aring", 229}, {"asymp", 8776}, {"atilde", 227}, {"auml", 228}, {"bdquo", 8222},
  {"beta", 946}, {"brvbar", 166}, {"bull", 8226}, {"cap", 8745}, {"ccedil", 231}, {"cedil", 184},
  {"cent", 162}, {"chi", 967}, {"circ", 710}, {"clubs", 9827}, {"cong", 8773}, {"copy", 169},
  {"crarr", 8629}, {"cup", 8746}, {"curren", 164}, {"dArr", 8659}, {"dagger", 8224},
  {"darr", 8595}, {"deg", 176}, {"delta", 948}, {"diams", 9830}, {"divide", 247}, {"eacute", 233},
  {"ecirc", 234}, {"egrave", 232}, {"empty", 8709}, {"emsp", 8195}, {"ensp", 8194},
  {"epsilon", 949}, {"equiv", 8801}, {"eta", 951}, {"eth", 240}, {"euml", 235}, {"euro", 8364},
  {"exist", 8707}, {"fnof", 402}, {"forall", 8704}, {"frac12", 189}, {"frac14", 188},
  {"frac34", 190}, {"frasl", 8260}, {"gamma", 947}, {"ge", 8805}, {"gt", 62}, {"hArr", 8660},
  {"harr", 8596}, {"hearts", 9829}, {"hellip", 8230}, {"iacute", 237}, {"icirc", 238},
  {"iexcl", 161}, {"igrave", 236}, {"image", 8465}, {"infin", 8734}, {"int", 8747}, {"iota", 953},
  {"iquest", 191}, {"isin", 8712}, {"iuml", 239}, {"kappa", 954}, {"lArr", 8656}, {"lambda", 955},
  {"lang", 9001}, {"laquo", 171}, {"larr", 8592}, {"lceil", 8968}, {"ldquo", 8220}, {"le", 8804},
  {"lfloor", 8970}, {"lowast", 8727}, {"loz", 9674}, {"lrm", 8206}, {"lsaquo", 8249},
  {"lsquo", 8216}, {"lt", 60}, {"macr", 175}, {"mdash", 8212}, {"micro", 181}, {"middot", 183},
  {"minus", 8722}, {"mu", 956}, {"nabla", 8711}, {"nbsp", 160}, {"ndash", 8211}, {"ne", 8800},
  {"ni", 8715}, {"not", 172}, {"notin", 8713}, {"nsub", 8836}, {"ntilde", 241}, {"nu", 957},
  {"oacute", 243}, {"ocirc", 244}, {"oelig", 339}, {"ograve", 242}, {"oline", 8254},
  {"omega", 969}, {"omicron", 959}, {"oplus", 8853}, {"or", 8744}, {"ordf", 170}, {"ordm", 186},
  {"oslash", 248}, {"otilde", 245}, {"otimes", 8855}, {"ouml", 246}, {"para", 182},
  {"part", 8706}, {"permil", 8240}, {"perp", 8869}, {"phi", 966}, {"pi", 960}, {"piv", 982},
  {"plusmn", 177}, {"pound", 163}, {"prime", 8242}, {"prod", 8719}, {"prop", 8733}, {"psi", 968},
  {"quot", 34}, {"rArr", 8658}, {"radic", 8730}, {"rang", 9002}, {"raquo", 187}, {"rarr", 8594},
  {"rceil", 8969}, {"rdquo", 8221}, {"real", 8476}, {"reg", 174}, {"rfloor", 8971}, {"rho", 961},
  {"rlm", 8207}, {"rsaquo", 8250}, {"rsquo", 8217}, {"sbquo", 8218}, {"scaron", 353},
  {"sdot", 8901}, {"sect", 167}, {"shy", 173}, {"sigma", 963}, {"sigmaf", 962}, {"sim", 8764},
  {"spades", 9824}, {"sub", 8834}, {"sube", 8838}, {"sum", 8721}, {"sup", 8835}, {"sup1", 185},
  {"sup2", 178}, {"sup3", 179}, {"supe", 8839}, {"szlig", 223}, {"tau", 964}, {"there4", 8756},
  {"theta", 952}, {"thetasym", 977}, {"thinsp", 8201}, {"thorn", 254}, {"tilde", 732},
  {"times", 215}, {"trade", 8482}, {"uArr", 8657}, {"uacute", 250}, {"uarr", 8593},
  {"ucirc", 251}, {"ugrave", 249}, {"uml", 168}, {"upsih", 978}, {"upsilon", 965}, {"uuml", 252},
  {"weierp", 8472}, {"xi", 958}, {"yacute", 253}, {"yen", 165}, {"yuml", 255}, {"zeta", 950},
  {"zwj", 8205}, {"zwnj", 8204},
}};
// clang-format on

// No name, and no number with its leading zeros, has more characters than this.
constexpr std::size_t kLongestName = 16;

// Returns the bytes of a character, which is no surrogate.
std::string bytes_of(char32_t character) {
  const auto byte = [](char32_t bits) { return static_cast<char>(bits); };
  const auto tail = [&](int shift) { return byte(0x80 | ((character >> shift) & 0x3F)); };
  if (character < 0x80) return {byte(character)};
  if (character < 0x800) return {byte(0xC0 | (character >> 6)), tail(0)};
  if (character < 0x10000) return {byte(0xE0 | (character >> 12)), tail(6), tail(0)};
  return {byte(0xF0 | (character >> 18)), tail(12), tail(6), tail(0)};
}

// Returns the character of a number. Tabs and line breaks become spaces, as they are white space.
// There is none for other control characters, surrogates and numbers that are too large.
std::optional<std::string> character_of(std::uint32_t number) {
  if (number == '\t' || number == '\n' || number == '\r') return " ";
  const bool is_control = number < 0x20 || (number >= 0x7F && number < 0xA0);
  const bool is_surrogate = number >= 0xD800 && number < 0xE000;
  if (is_control || is_surrogate || number > 0x10FFFF) return std::nullopt;
  return bytes_of(number);
}

// Reads the digits of a number: decimal ones, or hexadecimal ones behind an x.
std::optional<std::uint32_t> number_of(std::string_view digits) {
  int base = 10;
  if (digits.starts_with('x') || digits.starts_with('X')) {
    digits.remove_prefix(1);
    base = 16;
  }
  std::uint32_t number = 0;
  const auto [rest, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (error != std::errc() || rest != digits.data() + digits.size()) return std::nullopt;
  return number;
}

// Returns the end of the last tag of a text, or 0. No `<` before it may stay as such: if a tag is
// written with a reference, the malformed markup before it may be well-formed.
std::size_t end_of_markup(std::string_view text) {
  TagReader tags(text);
  std::size_t end = 0;
  for (std::size_t place = text.find('<'); place < text.size(); place = text.find('<', place)) {
    const TagSyntax syntax = tags.read(place);
    place += syntax.bytes;
    if (syntax.kind != TagSyntax::Kind::kText) end = place;
  }
  return end;
}

}  // namespace

std::optional<CharacterReference> read_reference(std::string_view text) {
  if (!text.starts_with('&')) return std::nullopt;
  const std::size_t end = text.substr(0, kLongestName).find(';');
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view name = text.substr(1, end - 1);
  std::optional<std::string> character;
  if (name.starts_with('#')) {
    if (const auto number = number_of(name.substr(1))) character = character_of(*number);
  } else {
    const auto found =
        std::lower_bound(kNames.begin(), kNames.end(), name,
                         [](const Name& a, std::string_view b) { return a.first < b; });
    if (found != kNames.end() && found->first == name) character = bytes_of(found->second);
  }
  if (!character) return std::nullopt;
  return CharacterReference{end + 1, std::move(*character)};
}

void ReferenceStyle::see_written(std::string_view character) {
  if (const int place = place_of(character); place >= 0)
    written_[static_cast<std::size_t>(place)] = true;
}

void ReferenceStyle::see_reference(std::string_view character) {
  if (const int place = place_of(character); place >= 0)
    referred_[static_cast<std::size_t>(place)] = true;
}

void ReferenceStyle::append(std::string& out, std::string_view text, bool is_last) const {
  // Malformed markup is complete only at the end of a line. Elsewhere it could go on in a tag.
  const std::size_t end = is_last ? end_of_markup(text) : text.size();
  std::size_t copied = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int place = place_of(text.substr(i, 2));
    if (place < 0) continue;
    const auto index = static_cast<std::size_t>(place);
    if (written_[index] && !referred_[index] && !is_markup(text.substr(i), i < end)) continue;
    out.append(text, copied, i - copied).append(kReferences[index].second);
    copied = i + kReferences[index].first.size();
    i = copied - 1;
  }
  out.append(text, copied, std::string_view::npos);
}

int ReferenceStyle::place_of(std::string_view text) {
  if (text.empty()) return -1;
  for (std::size_t i = 0; i < kReferences.size(); ++i) {
    if (text.starts_with(kReferences[i].first)) return static_cast<int>(i);
  }
  return -1;
}

bool ReferenceStyle::is_markup(std::string_view text, bool is_before_end) {
  if (text.front() == '&') return read_reference(text).has_value();
  return is_before_end && text.front() == '<' && text.size() > 1 && may_begin_tag(text[1]);
}

}  // namespace xlate
