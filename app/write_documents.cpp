// Writes the manual page of xlate and the completions for shells while xlate is built. They come
// from the table of options, so that they always agree with --help.
//
// usage: write_documents TEMPLATE DATE FOLDER
//
// In the template of the manual page, a line of @OPTIONS@ stands for the options, and @DATE@ and
// @VERSION@ for these two. FOLDER has the layout of an installed share/.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "app/completions.h"
#include "app/man_page.h"
#include "app/option_table.h"
#include "app/version.h"
#include "engine/error.h"

namespace {

using namespace xlate;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!(text << file.rdbuf())) fail("{}: cannot be read", path);
  return text.str();
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!(file << text << std::flush)) fail("{}: cannot be written", path.string());
}

// Puts the value in the place of the one mark in the text.
void fill(std::string& text, const std::string& mark, const std::string& value) {
  const std::size_t place = text.find(mark);
  if (place == std::string::npos) fail("the template has no {}", mark);
  text.replace(place, mark.size(), value);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) fail("usage: write_documents TEMPLATE DATE FOLDER");
  const std::vector<OptionEntry> options = option_table();
  std::string page = read(argv[1]);
  fill(page, "@DATE@", argv[2]);
  fill(page, "@VERSION@", kVersion);
  fill(page, "@OPTIONS@\n", man_options(options));
  const std::filesystem::path share = argv[3];
  write(share / "man/man1/xlate.1", page);
  write(share / "bash-completion/completions/xlate", bash_completion(options));
  write(share / "zsh/site-functions/_xlate", zsh_completion(options));
  write(share / "fish/vendor_completions.d/xlate.fish", fish_completion(options));
} catch (const std::exception& error) {
  std::fprintf(stderr, "write_documents: %s\n", error.what());
  return 1;
}
