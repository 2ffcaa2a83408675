// Implements the output file: where it is written, packing as gzip data, and checked writes.
#include "app/output_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

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
// file that it points to is replaced. Returns an empty path if nothing can be replaced: a device or
// a pipe must be written in place, and what a link like /dev/stdout points to may have no name.
std::string replaced_path(const std::string& path) {
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

std::string OutputFile::partial_path(const std::string& path) {
  const std::string replaced = replaced_path(path);
  return replaced.empty() ? "" : replaced + ".partial";
}

OutputFile::OutputFile(const std::string& path) : name_(is_stdout(path) ? "stdout" : path) {
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
    partial_ = std::make_unique<PartialFile>(replaced, partial_path(path), path);
    file_ = partial_->take_file();
  } else {
    file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file_ < 0) fail("{}: cannot be written: {}", path, std::strerror(errno));
  }
  if (path.size() > 3 && path.ends_with(".gz")) deflater_ = std::make_unique<Deflater>();
}

OutputFile::~OutputFile() { abandon(); }

void OutputFile::write_bytes(const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = ::write(file_, data, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      // The pipe is full, and whoever passed it to this process has made it non-blocking.
      if (errno == EAGAIN) {
        pollfd room{file_, POLLOUT, 0};
        poll(&room, 1, -1);
        continue;
      }
      if (errno == EPIPE) throw ClosedPipe();
      fail("{}: cannot be written: {}", name_, write_error(errno));
    }
    data += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void OutputFile::write(std::string_view text) {
  written_ |= !text.empty();
  if (!deflater_)
    write_bytes(text.data(), text.size());
  else
    deflater_->pack(text, Z_NO_FLUSH,
                    [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
}

void OutputFile::flush() {
  if (deflater_)
    deflater_->pack({}, Z_SYNC_FLUSH,
                    [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
}

void OutputFile::close_file() {
  // Some file systems report a failed write only here. Of stdout a copy is closed, since the report
  // may go to /dev/stdout afterwards.
  const int opened = std::exchange(file_, -1),
            file = opened == STDOUT_FILENO ? dup(opened) : opened;
  if (file < 0 || close(file) != 0) fail("{}: cannot be written: {}", name_, write_error(errno));
}

void OutputFile::finish() {
  if (deflater_)
    deflater_->pack({}, Z_FINISH,
                    [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
  close_file();
  if (partial_) partial_->rename_to_path();
  partial_.reset();  // This releases the lock, so that another run may write the output.
}

void OutputFile::abandon() noexcept {
  if (file_ < 0) return;
  try {
    if (deflater_ && (written_ || !partial_))
      deflater_->pack({}, Z_FINISH,
                      [&](const char* data, std::size_t bytes) { write_bytes(data, bytes); });
  } catch (const Error&) {
    // The run has already failed for another reason, which is the one to report.
  }
  if (file_ > STDOUT_FILENO) close(file_);
  file_ = -1;
  if (partial_ && !written_) partial_->remove();
}

}  // namespace xlate
