// Implements the journal of an unfinished output: its format, and its thread.
#include "app/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "app/file_sync.h"
#include "engine/error.h"
#include "engine/limits.h"
#include "engine/threads.h"

namespace xlate {
namespace {

// A block is a sector, so that writing one does not touch another.
constexpr std::size_t kBlock = 512, kBlocks = 4, kUnsyncedBlocks = 2;
constexpr std::size_t kRunBegin = kBlock * kBlocks;
constexpr std::chrono::milliseconds kSyncInterval{5000};
constexpr std::size_t kHashDigits = 16;

std::string hex(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

// Returns the block of a mark: its numbers, the hash of these, spaces and a newline.
std::string block_of(const Journal::Mark& mark) {
  std::string text =
      fmt::format("{} {} {} {} ", mark.lines, mark.bytes, hex(mark.output), hex(mark.input));
  text += hex(hash_of(text));
  text.resize(kBlock - 1, ' ');
  return text + "\n";
}

// Returns the mark of a block, or nothing if the block is damaged.
std::optional<Journal::Mark> mark_of(const std::string& block) {
  Journal::Mark mark;
  long long lines = 0, bytes = 0;
  unsigned long long output = 0, input = 0;
  if (std::sscanf(block.c_str(), "%lld %lld %llx %llx", &lines, &bytes, &output, &input) != 4)
    return std::nullopt;
  mark = {.lines = lines, .bytes = bytes, .output = output, .input = input};
  if (lines < 0 || bytes < 0 || block_of(mark) != block) return std::nullopt;
  return mark;
}

// Returns the time between two syncs. Tests have a hook for a shorter one.
std::chrono::milliseconds sync_interval() {
  const char* milliseconds = std::getenv("XLATE_TEST_SYNC_MILLISECONDS");
  return milliseconds ? std::chrono::milliseconds(std::atoll(milliseconds)) : kSyncInterval;
}

// Writes all bytes at a place of a file. Returns false, with errno set, if that fails.
bool write_at(int file, std::string_view bytes, std::size_t begin) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(begin));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
    begin += static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace

std::uint64_t Journal::hash_of_lines(std::uint64_t before, const Line& line) {
  return hash_of(line.prefix, hash_of(line.text, before + (line.shortened ? 1 : 0)));
}

std::optional<Journal::Content> Journal::read(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct stat status {};
  const bool regular = file >= 0 && fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  std::string text(regular ? static_cast<std::size_t>(status.st_size) : 0, '\0');
  const bool complete =
      regular && pread(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  if (file >= 0) close(file);
  if (!complete || text.size() < kRunBegin + kHashDigits + 2) return std::nullopt;
  Content content;
  for (std::size_t block = 0; block < kBlocks; ++block) {
    if (const auto mark = mark_of(text.substr(block * kBlock, kBlock)))
      content.marks.push_back(*mark);
  }
  // The description stands behind its hash and a space, and before a newline.
  const std::size_t begin = kRunBegin + kHashDigits + 1;
  content.run = text.substr(begin, text.size() - begin - 1);
  if (text.compare(kRunBegin, kHashDigits, hex(hash_of(content.run))) != 0) return std::nullopt;
  return content;
}

Journal::Journal(const Files& files, const std::string& run, const Mark& begin,
                 const StreamHash& hash, std::function<void(const std::string&)> note)
    : files_(files),
      new_path_(files.path + ".new"),
      note_(std::move(note)),
      last_line_(begin.input),
      hash_(hash),
      next_(begin),
      written_(begin) {
  try {
    create(run);
    thread_ = start_thread("keeping the journal", [this] { work(); });
  } catch (...) {
    if (file_ >= 0) close(file_);
    unlink(new_path_.c_str());
    throw;
  }
}

Journal::~Journal() {
  end_thread();
  if (file_ >= 0) close(file_);
}

// Writes the file under its first name. No other run does that, since this one has the lock of the
// output.
void Journal::create(const std::string& run) {
  unlink(new_path_.c_str());
  // The run may have been told things that nobody else may know, such as a template.
  file_ = open(new_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file_ < 0) fail("{}: cannot be written: {}", files_.path, std::strerror(errno));
  std::string text;
  for (std::size_t block = 0; block < kBlocks; ++block) text += block_of(next_);
  text += fmt::format("{} {}\n", hex(hash_of(run)), run);
  if (!write_at(file_, text, 0)) fail("{}: cannot be written: {}", files_.path, write_error(errno));
}

void Journal::add_line(const Line& line) {
  std::lock_guard lock(mutex_);
  last_line_ = hash_of_lines(last_line_, line);
  lines_.push_back(last_line_);
}

void Journal::before_write(std::string_view text, std::int64_t lines) {
  std::unique_lock lock(mutex_);
  // If the output had bytes before the journal is on the disk, a power failure could leave an
  // output of which nothing is known.
  changed_.wait(lock, [&] { return published_ || broken_; });
  if (failure_) std::rethrow_exception(failure_);
  const auto last = lines_.begin() + (lines - 1);
  next_.input = *last;
  lines_.erase(lines_.begin(), last + 1);
  next_.lines += lines;
  next_.bytes += static_cast<std::int64_t>(text.size());
  hash_.add(text);
  next_.output = hash_.value();
  if (broken_) return;
  lock.unlock();
  if (!write_mark(marks_++ % kUnsyncedBlocks, next_)) give_up(write_error(errno));
}

void Journal::after_write() {
  std::lock_guard lock(mutex_);
  written_ = next_;
}

bool Journal::write_mark(std::size_t block, const Mark& mark) {
  return write_at(file_, block_of(mark), block * kBlock);
}

// Writes no more marks. Those that are there stay right.
void Journal::give_up(const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(broken_, true)) return;
    changed_.notify_all();
  }
  note_(
      fmt::format("{}: cannot be written: {}: if the run is killed, --resume cannot go on from "
                  "where it was",
                  files_.path, why));
}

void Journal::work() {
  try {
    publish();
    sync_marks();
  } catch (const Error& error) {
    give_up(error.what());
  }
}

// Gives the journal its name when it is on the disk, and the output that it speaks of, too.
void Journal::publish() {
  if (written_.bytes > 0) {
    if (!sync_file(files_.output)) fail("{}", std::strerror(errno));
  }
  if (!sync_file(file_) || std::rename(new_path_.c_str(), files_.path.c_str()) != 0 ||
      !sync_folder_of(files_.path)) {
    const std::string cause = std::strerror(errno);
    // Nobody would ever read a file of this name.
    unlink(new_path_.c_str());
    fail("{}", cause);
  }
  std::lock_guard lock(mutex_);
  published_ = true;
  changed_.notify_all();
}

void Journal::sync_marks() {
  const std::chrono::milliseconds interval = sync_interval();
  std::unique_lock lock(mutex_);
  std::int64_t saved = written_.lines;
  while (!changed_.wait_for(lock, interval, [&] { return stopping_ || broken_; })) {
    const Mark mark = written_;
    if (mark.lines == saved) continue;
    lock.unlock();
    save(mark);
    saved = mark.lines;
    lock.lock();
  }
}

// Syncs the output, and then a mark that speaks of it.
void Journal::save(const Mark& mark) {
  if (!sync_file(files_.output)) {
    const std::string cause = std::strerror(errno);
    std::lock_guard lock(mutex_);
    // The system reports such an error once only, so that the last sync of the run would succeed.
    failure_ = std::make_exception_ptr(
        Error(fmt::format("{}: cannot be written: {}", files_.shown, cause)));
    fail("{}", cause);
  }
  if (!write_mark(kUnsyncedBlocks + synced_marks_++ % kUnsyncedBlocks, mark) || !sync_file(file_))
    fail("{}", write_error(errno));
}

void Journal::end_thread() noexcept {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Journal::stop() {
  end_thread();
  if (failure_) std::rethrow_exception(failure_);
}

void Journal::remove() noexcept {
  struct stat opened {
  }, named{};
  if (fstat(file_, &opened) != 0) return;
  for (const std::string& path : {files_.path, new_path_}) {
    if (lstat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
        opened.st_ino == named.st_ino)
      unlink(path.c_str());
  }
}

}  // namespace xlate
