// Implements the output file: where it is written, packing as gzip data, and checked writes.
#include "app/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "app/descriptors.h"
#include "app/file_sync.h"
#include "engine/limits.h"

namespace xlate {

// Packs text as gzip data.
class OutputFile::Deflater {
 public:
  Deflater() {
    if (deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK)
      fail("zlib: out of memory");
  }
  ~Deflater() { deflateEnd(&stream_); }
  bool has_text() const { return stream_.total_in > 0; }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  // Passes what `text` packs to on to `sink`, a block at a time. `mode` is the flush mode of zlib's
  // deflate().
  template <class Sink>
  void pack(std::string_view text, int mode, const Sink& sink) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream_.avail_in = static_cast<uInt>(text.size());
    std::vector<char> block(64 * 1024);
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(block.data());
      stream_.avail_out = static_cast<uInt>(block.size());
      deflate(&stream_, mode);
      sink(block.data(), block.size() - stream_.avail_out);
    } while (stream_.avail_out == 0);
  }

 private:
  z_stream stream_{};
};

namespace {

// Returns the path of the file that writing through a dangling link would create, also if the link
// points to further dangling links.
std::string end_of_links(const std::string& path) {
  constexpr int kMostLinks = 40;  // The system follows no more links than that.
  std::filesystem::path end = path;
  std::error_code error;
  for (int i = 0; i < kMostLinks && std::filesystem::is_symlink(end, error); ++i)
    end = end.parent_path() / std::filesystem::read_symlink(end, error);
  return end;
}

// Returns the path of the file that an output of this name replaces. A link stays a link, and the
// file that it points to is replaced. Returns an empty path if nothing can be replaced: a device, a
// pipe or a file that is open as one of the descriptors must be written in place.
std::string replaced_path(const std::string& path) {
  if (named_descriptor(path)) return "";
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return path;
  const bool link = S_ISLNK(status.st_mode);
  if (link && stat(path.c_str(), &status) != 0) return errno == ENOENT ? end_of_links(path) : "";
  if (!S_ISREG(status.st_mode)) return "";
  if (!link) return path;
  std::error_code error;
  const std::string target = std::filesystem::canonical(path, error);
  return error || stat(target.c_str(), &status) != 0 || !S_ISREG(status.st_mode) ? "" : target;
}

}  // namespace

bool OutputFile::is_stdout(const std::string& path) {
  return path.empty() || path == "-" || named_descriptor(path) == STDOUT_FILENO;
}

bool OutputFile::is_packed(const std::string& path) {
  return path.size() > 3 && path.ends_with(".gz");
}

std::string OutputFile::partial_path(const std::string& path) {
  const std::string replaced = replaced_path(path);
  return replaced.empty() ? "" : replaced + ".partial";
}

std::string OutputFile::journal_path(const std::string& path) {
  const std::string partial = partial_path(path);
  return partial.empty() ? "" : partial + ".journal";
}

OutputFile::OutputFile(const std::string& path, PartialFile::Old old)
    : name_(is_stdout(path) ? "stdout" : path) {
  if (is_stdout(path)) {
    file_ = STDOUT_FILENO;
    const int flags = fcntl(file_, F_GETFL);
    if (flags < 0) fail("stdout: cannot be written: {}", std::strerror(errno));
    if ((flags & O_ACCMODE) == O_RDONLY)
      fail("stdout: cannot be written: it is closed, or open for reading only");
    return;
  }
  struct stat status {};
  const bool exists = stat(path.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) fail("{}: is a folder, expected a file", path);
  if (const std::string replaced = replaced_path(path); !replaced.empty()) {
    if (exists && access(replaced.c_str(), W_OK) != 0)
      fail("{}: cannot be written: {}", path, std::strerror(errno));
    partial_ = std::make_unique<PartialFile>(replaced, partial_path(path), path, old);
    file_ = partial_->take_file();
    journal_path_ = journal_path(path);
    has_old_text_ = partial_->is_old() && fstat(file_, &status) == 0 && status.st_size > 0;
  } else {
    const std::optional<int> descriptor = named_descriptor(path);
    file_ = descriptor ? fcntl(*descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)
                       : open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file_ < 0) fail("{}: cannot be written: {}", path, std::strerror(errno));
  }
  if (is_packed(path)) deflater_ = std::make_unique<Deflater>();
}

OutputFile::~OutputFile() { abandon(); }

void OutputFile::fail_to_write() const {
  fail("{}: cannot be written: {}", name_, write_error(errno));
}

std::optional<Journal::Files> OutputFile::journal_files() const {
  if (!partial_ || !partial_->is_locked() || deflater_) return std::nullopt;
  return Journal::Files{.path = journal_path_, .shown = name_, .output = file_};
}

void OutputFile::continue_at(std::int64_t bytes) {
  if (ftruncate(file_, bytes) != 0 || lseek(file_, bytes, SEEK_SET) != bytes) fail_to_write();
}

// Another program may have cut the unfinished output. What is written behind its end then would
// leave zeros before it.
void OutputFile::check_untouched() const {
  if (!partial_) return;
  struct stat status {};
  const off_t end = lseek(file_, 0, SEEK_CUR);
  if (end < 0 || fstat(file_, &status) != 0) fail_to_write();
  if (status.st_size != end)
    fail("{}: is not written: {} was changed meanwhile and has {} bytes, expected {}", name_,
         partial_->name(), status.st_size, end);
}

void OutputFile::write_bytes(const char* data, std::size_t bytes) {
  check_untouched();
  if (write_all(file_, {data, bytes})) return;
  if (errno == EPIPE) throw ClosedPipe();
  fail_to_write();
}

void OutputFile::write(std::string_view text, std::int64_t lines) {
  if (journal_) journal_->before_write(text, lines);
  if (!deflater_)
    write_bytes(text.data(), text.size());
  else
    deflater_->pack(text, Z_NO_FLUSH,
                    [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
  if (journal_) journal_->after_write();
}

void OutputFile::flush() {
  if (deflater_)
    deflater_->pack({}, Z_SYNC_FLUSH,
                    [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
}

void OutputFile::close_file() {
  // Some file systems report a failed write only here. A copy of stdout is closed, since the report
  // may go there afterwards.
  const int opened = std::exchange(file_, -1),
            file = opened == STDOUT_FILENO ? dup(opened) : opened;
  if (file < 0 || close(file) != 0) fail_to_write();
}

void OutputFile::finish() {
  if (deflater_)
    deflater_->pack({}, Z_FINISH,
                    [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
  if (journal_) journal_->stop();
  check_untouched();
  if (partial_ && !sync_file(file_)) fail_to_write();
  close_file();
  if (!partial_) return;
  partial_->rename_to_path();
  if (!sync_folder_of(partial_->name())) fail_to_write();
  // Until now the journal was needed, because the system may still have had the old name.
  if (journal_) journal_->remove();
  journal_.reset();
  partial_.reset();  // This releases the lock, so that another run may write the output.
}

void OutputFile::abandon() noexcept {
  if (file_ < 0) return;
  try {
    if (journal_) journal_->stop();
    if (deflater_ && (deflater_->has_text() || !partial_))
      deflater_->pack({}, Z_FINISH,
                      [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
  } catch (const Error&) {
    // The run has already failed for another reason, which is the one to report.
  }
  // The file can be empty although there was text, because a full disk takes none.
  struct stat status {};
  const bool empty = partial_ && fstat(file_, &status) == 0 && status.st_size == 0;
  if (file_ > STDOUT_FILENO) close(file_);
  file_ = -1;
  if (empty) {
    partial_->remove();
    if (journal_) journal_->remove();
  }
}

}  // namespace xlate
