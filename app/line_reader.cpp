// Implements the reading of lines: opening and polling the inputs, unpacking gzip data, and
// splitting the bytes into lines.
#include "app/line_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <string_view>

#include "app/interrupt.h"
#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr std::size_t kBlock = 256 * 1024;
constexpr std::size_t kPackedBlock = 16 * 1024;  // It can unpack to a thousand times its size.

constexpr std::string_view kGzip = "\x1f\x8b";

bool is_packed(const std::string& path) { return path.size() > 3 && path.ends_with(".gz"); }

// Unpacks one gzip file, which has one or several members. Zeros after a member are padding, as
// gzip treats them. Anything else there is an error: it may be a member whose beginning is damaged,
// and skipping it, as gzip does with a warning, could lose lines.
class Inflater {
 public:
  Inflater() {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) fail("zlib: out of memory");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// Appends to `out` what `data` unpacks to. Throws Error if the data is damaged, after appending
  /// everything that comes before the damage.
  void unpack(const std::string& name, char* data, std::size_t bytes, std::string& out) {
    stream_.next_in = reinterpret_cast<Bytef*>(data);
    stream_.avail_in = static_cast<uInt>(bytes);
    do {
      if (ended_ && !begin_member(name)) return;
      inflate_block(name, out);
    } while (stream_.avail_in > 0 || stream_.avail_out == 0);
  }
  /// Returns whether the last member is complete, so that the file may end here.
  bool ended() const { return ended_; }

 private:
  // Begins the next member. Returns false if only padding is left of the input read so far.
  bool begin_member(const std::string& name) {
    for (; stream_.avail_in > 0 && *stream_.next_in == 0; ++stream_.next_in, --stream_.avail_in) {
    }
    if (stream_.avail_in == 0) return false;
    if (*stream_.next_in != static_cast<Bytef>(kGzip[0]))
      fail("{}: damaged gzip data: what follows a member is neither another nor zeros", name);
    if (inflateReset(&stream_) != Z_OK) fail("{}: zlib cannot go on", name);
    ended_ = false;
    return true;
  }

  void inflate_block(const std::string& name, std::string& out) {
    char block[kBlock];
    stream_.next_out = reinterpret_cast<Bytef*>(block);
    stream_.avail_out = kBlock;
    const int status = inflate(&stream_, Z_NO_FLUSH);
    out.append(block, kBlock - stream_.avail_out);
    ended_ = status == Z_STREAM_END;
    // Z_BUF_ERROR is no damage: the block before this one was full, and nothing was left to unpack.
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
      fail("{}: damaged gzip data: {}", name, stream_.msg ? stream_.msg : "unexpected bytes");
    }
  }

  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

// Reads one input, which is a file, a pipe or stdin, and unpacks it if it holds gzip data.
class LineReader::Stream {
 public:
  /// Opens the input. Does not wait for the writer of a named pipe, who may come when the inputs
  /// before it have been read. Throws Error if the input cannot be opened or is a folder.
  explicit Stream(const std::string& path)
      : name_(path == "-" ? "stdin" : path),
        file_(path == "-" ? STDIN_FILENO
                          : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    // If a signal has interrupted the opening, the run ends, and nothing will be read.
    if (file_ < 0 && errno == EINTR && stop_flag()) return;
    if (file_ < 0) fail("{}: cannot be opened: {}", path, std::strerror(errno));
    struct stat status {};
    if (fstat(file_, &status) == 0 && S_ISDIR(status.st_mode))
      fail("{}: is a folder, expected a file", name_);
    if (S_ISREG(status.st_mode))
      facts_ = {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
  }
  ~Stream() {
    if (file_ > STDIN_FILENO) close(file_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  const InputFacts& facts() const { return facts_; }

  /// Waits for data up to `timeout`, and appends what it reads, unpacked, to `out`. Returns the
  /// number of bytes before unpacking, 0 at the end of the input or when the run is to stop, or −1
  /// if there is nothing for `out` yet. `wake` is a descriptor that ends the waiting. Throws Error
  /// if reading fails or the data is damaged.
  std::int64_t read(std::string& out, std::chrono::milliseconds timeout, int wake) {
    if (file_ < 0) return 0;
    if (failure_) std::rethrow_exception(failure_);
    // poll() ignores negative descriptors.
    pollfd ready[] = {{file_, POLLIN, 0}, {wake, POLLIN, 0}, {signal_fd(), POLLIN, 0}};
    const int events = poll(ready, 3, static_cast<int>(timeout.count()));
    if (stop_flag() || ready[1].revents != 0) return 0;
    if (events == 0) return -1;
    if (events < 0 && errno == EINTR) return -1;
    block_.resize(inflater_ || !known_ ? kPackedBlock : kBlock);
    const ssize_t bytes = ::read(file_, block_.data() + held_, block_.size() - held_);
    if (bytes < 0) {
      if (errno == EINTR || errno == EAGAIN) return -1;
      fail("{}: cannot be read: {}", name_, std::strerror(errno));
    }
    const std::size_t count = held_ + static_cast<std::size_t>(bytes);
    if (!known_ && !recognise(count, bytes == 0)) {
      held_ = count;
      return -1;
    }
    held_ = 0;
    if (!inflater_)
      out.append(block_.data(), count);
    else if (count > 0)
      unpack(count, out);
    else if (!inflater_->ended() && started_)
      fail("{}: damaged gzip data: it ends too early", name_);
    started_ |= count > 0;
    return static_cast<std::int64_t>(count);
  }

 private:
  // Finds out by the first bytes, which are at the beginning of the block, whether the input is
  // gzip data: no text begins with these bytes. Returns false if more are needed to know. Throws
  // Error if the name of the input promises gzip data and the bytes are something else.
  bool recognise(std::size_t count, bool at_end) {
    if (count == 1 && block_[0] == kGzip[0] && !at_end) return false;
    const auto begin = std::string_view(block_).substr(0, std::min(count, kGzip.size()));
    const bool expected = is_packed(name_);
    if (expected && !kGzip.starts_with(begin))
      fail("{}: is not gzip data, expected gzip data under a name that ends in .gz", name_);
    if (expected || begin == kGzip) inflater_ = std::make_unique<Inflater>();
    known_ = true;
    return true;
  }
  // Unpacks the block. Keeps an error for the next read, so that the lines before the damage come
  // first.
  void unpack(std::size_t bytes, std::string& out) {
    try {
      inflater_->unpack(name_, block_.data(), bytes, out);
    } catch (const Error&) {
      failure_ = std::current_exception();
    }
  }

  std::string name_;
  int file_;
  InputFacts facts_;
  std::string block_;
  bool known_ = false;    // It becomes true when it is known whether the input is gzip data.
  std::size_t held_ = 0;  // This many bytes are in the block while they do not yet tell that.
  std::unique_ptr<Inflater> inflater_;  // It is null unless the input is gzip data.
  bool started_ = false;                // It becomes true when a byte has been read.
  std::exception_ptr failure_;          // The next read throws this error.
};

namespace {

// Raises the limit on open files if it is too low for `count` inputs. All inputs are open at once,
// so that a missing one is reported before any work, and they may be more than the soft limit
// allows.
void allow_open_files(std::size_t count) {
  constexpr std::size_t kOthers = 64;  // These are for the files that are no inputs.
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count + kOthers) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // If this fails, opening an input reports it.
}

}  // namespace

LineReader::LineReader(const std::vector<std::string>& paths)
    : wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  allow_open_files(paths.size());
  for (const std::string& path : paths) {
    streams_.push_back(std::make_unique<Stream>(path));
    const std::int64_t bytes = streams_.back()->facts().bytes;
    bytes_total_ = bytes < 0 || bytes_total_ < 0 ? -1 : bytes_total_ + bytes;
  }
}

LineReader::~LineReader() {
  if (wake_ >= 0) close(wake_);
}

std::vector<InputFacts> LineReader::facts() const {
  std::vector<InputFacts> facts;
  for (const auto& stream : streams_) facts.push_back(stream->facts());
  return facts;
}

void LineReader::stop() {
  stopped_ = true;
  // If this fails, nothing more can be done here, and the flag is set anyway.
  [[maybe_unused]] const int written = eventfd_write(wake_, 1);
}

bool LineReader::stopped() const { return stopped_ || stop_flag(); }

// Reads more of the current input into the buffer. Returns false at the end of that input.
bool LineReader::fill(std::chrono::milliseconds timeout, bool& timed_out) {
  buffer_.erase(0, taken_);
  taken_ = 0;
  const std::int64_t left = std::ssize(buffer_),
                     bytes = streams_[current_]->read(buffer_, timeout, wake_);
  timed_out = bytes < 0;
  if (bytes > 0) bytes_read_ += bytes;
  bytes_unpacked_ += std::ssize(buffer_) - left;
  return bytes != 0;
}

double LineReader::share_taken() const {
  if (bytes_total_ <= 0) return -1;
  if (bytes_unpacked_ == 0) return 0;
  const auto read = static_cast<double>(bytes_read_),
             unpacked = static_cast<double>(bytes_unpacked_),
             left = static_cast<double>(buffer_.size() - taken_);
  // The input may have grown since its size was asked for.
  return std::min(1.0, read / static_cast<double>(bytes_total_) * (1 - left / unpacked));
}

LineReader::Got LineReader::next(Line& line, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (current_ < streams_.size() && !stopped()) {
    const std::size_t newline = buffer_.find('\n', taken_);
    const std::size_t end = newline == std::string::npos ? buffer_.size() : newline;
    if (end > taken_ || newline != std::string::npos) {
      // Five bytes more than a line may have are kept: three for a BOM, and two so that a CR after
      // a line of exactly the largest length is seen.
      const std::size_t room =
          kMaxLineBytes + 5 - std::min(kMaxLineBytes + 5, partial_.text.size());
      partial_.text.append(buffer_, taken_, std::min(room, end - taken_));
      partial_.shortened |= end - taken_ > room;
      has_partial_ = true;
      taken_ = end;
    }
    if (newline != std::string::npos) {
      ++taken_;
      finish_line(line);
      return Got::kLine;
    }
    auto left = timeout;
    if (timeout.count() >= 0)
      left = std::max(std::chrono::milliseconds(0),
                      std::chrono::duration_cast<std::chrono::milliseconds>(
                          deadline - std::chrono::steady_clock::now()));
    bool timed_out = false;
    if (fill(left, timed_out)) {
      if (timed_out && timeout.count() >= 0 && std::chrono::steady_clock::now() >= deadline)
        return Got::kTimeout;
      continue;
    }
    if (stopped()) break;
    ++current_;
    const bool has_line = has_partial_;
    if (has_line) finish_line(line);
    at_start_ = true;
    if (has_line) return Got::kLine;
  }
  return Got::kEnd;
}

void LineReader::finish_line(Line& line) {
  line = std::move(partial_);
  partial_ = {};
  has_partial_ = false;
  if (at_start_ && line.text.starts_with("\xEF\xBB\xBF")) line.text.erase(0, 3);
  at_start_ = false;
  if (!line.shortened && line.text.ends_with('\r')) line.text.pop_back();
  if (line.text.size() > kMaxLineBytes) {
    line.text.resize(kMaxLineBytes);
    line.shortened = true;
  }
  if (line.shortened) line.text.resize(without_cut_character(line.text).size());
}

}  // namespace xlate
