// Tests a backend's description of itself and its memory: allocation, uploads, reads and
// conversions.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support.h"

namespace xlate::test {
namespace {

class BackendTest : public OnBackend {
 protected:
  Lab lab{GetParam(), Sharing::kShared};
};
INSTANTIATE_TEST_SUITE_P(, BackendTest, testing::ValuesIn(backends()), backend_name);

TEST_P(BackendTest, TellsWhatItIs) {
  const DeviceInfo info = lab->info();
  for (const std::string& text : {info.kind, info.name, info.instruction_set, info.library})
    EXPECT_FALSE(text.empty());
  if (info.kind == "cpu") {
    EXPECT_EQ(info.threads, GetParam().name.back() - '0');
  }
  EXPECT_GT(lab->cache_budget(), 0u);
}

TEST_P(BackendTest, MemoryGoesThereAndBack) {
  EXPECT_EQ(lab->allocate(0).bytes(), 0u);
  const Buffer buffer = lab->allocate(1000);
  EXPECT_GE(buffer.bytes(), 1000u);
  std::vector<std::byte> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  const auto other = lab->make_queue();
  lab->upload(lab.queue(), bytes, buffer.data());
  const std::vector<std::byte> sent = bytes;
  // The upload has copied the bytes, so this does not change what arrives.
  bytes.assign(1000, std::byte{0});
  lab->order(lab.queue(), *other);
  const auto ticket = lab->read_later(*other, {buffer.as<std::byte>() + 3, 990});
  const auto back = ticket->wait();
  EXPECT_TRUE(ticket->ready());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), sent.begin() + 3, sent.begin() + 993));
  lab->upload(*other, {}, buffer.data());
  expect_error([&] { lab->allocate(std::size_t{1} << 60); }, {"memory"});
}

// `size` bytes go into a buffer from its byte `first` on.
struct UploadCase {
  std::string name;
  std::size_t size, first;
};

// These are all pairs of the sizes and the offsets.
std::vector<UploadCase> upload_cases() {
  std::vector<UploadCase> cases;
  for (const std::size_t size : {1u, 4u, 7u, 16u, 4096u, 65536u, 65540u, 300001u}) {
    for (const std::size_t first : {0u, 4u, 5u, 16u})
      cases.push_back({fmt::format("size{}_from{}", size, first), size, first});
  }
  return cases;
}

class BackendUpload : public OnBackendWith<UploadCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendUpload, testing::ValuesIn(on_each(backends(), upload_cases())),
                         CaseName());

TEST_P(BackendUpload, WritesItsBytesAndNoOthers) {
  const auto& [name, size, first] = test();
  const Buffer buffer = lab->allocate(size + 48);
  lab->clear(lab.queue(), buffer.data(), size + 48);
  std::vector<std::byte> bytes(size), expected(size + 48);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = expected[first + i] = static_cast<std::byte>(whole(random, 1, 255));
  lab->upload(lab.queue(), bytes, buffer.as<char>() + first);
  const auto ticket = lab->read_later(lab.queue(), {buffer.as<std::byte>(), size + 48});
  const auto back = ticket->wait();
  EXPECT_TRUE(std::equal(back.begin(), back.end(), expected.begin()));
}

struct CountCase {
  std::string name;
  int count;
};

std::vector<CountCase> count_cases(std::initializer_list<int> counts) {
  std::vector<CountCase> cases;
  for (const int count : counts) cases.push_back({fmt::format("count{}", count), count});
  return cases;
}

class BackendUpdateTable : public OnBackendWith<CountCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendUpdateTable,
                         testing::ValuesIn(on_each(backends(), count_cases({0, 1, 31, 700}))),
                         CaseName());

TEST_P(BackendUpdateTable, ChangesOnlyTheNamedPlaces) {
  std::vector<std::int32_t> table(1000);
  for (std::int32_t i = 0; i < 1000; ++i) table[static_cast<std::size_t>(i)] = i;
  std::int32_t* const device = lab.put(table);
  std::vector<TableUpdate> changes;
  for (std::int32_t i = 0; i < test().count; ++i) {
    const std::int32_t place = i * 7 % 1000;
    changes.push_back({place, -1 - place});
    table[static_cast<std::size_t>(place)] = -1 - place;
  }
  lab->update_table(lab.queue(), changes, device);
  // The call has copied the changes, so this does not change what arrives.
  changes.assign(changes.size(), {0, 0});
  EXPECT_EQ(lab.array<std::int32_t>(device, 1000), table);
}

class BackendUploadAs : public OnBackendWith<CountCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendUploadAs,
                         testing::ValuesIn(on_each(backends(), count_cases({1, 2, 31, 1000}))),
                         CaseName());

// Clearing is tested as well.
TEST_P(BackendUploadAs, RoundsToTheType) {
  const int count = test().count;
  std::vector<float> numbers;
  for (int i = 0; i < count; ++i)
    numbers.push_back(uniform(random, -70000, 70000) *
                      static_cast<float>(std::ldexp(1, -whole(random, 0, 30))));
  const Tensor own = lab.uninitialized(1, count, lab.type()),
               floats = lab.uninitialized(1, count, DType::kFloat32);
  lab->upload_as(lab.queue(), numbers, lab.type(), own.data);
  lab->upload_as(lab.queue(), numbers, DType::kFloat32, floats.data);
  const Matrix found = lab.get(own), same = lab.get(floats);
  for (int i = 0; i < count; ++i) {
    const double number = numbers[static_cast<std::size_t>(i)];
    const bool too_large = lab.type() == DType::kFloat16 && std::fabs(number) >= 65520;
    EXPECT_EQ(found(0, i), too_large
                               ? std::copysign(std::numeric_limits<double>::infinity(), number)
                               : rounded(lab.type(), number));
    EXPECT_EQ(same(0, i), number);
  }
  lab->clear(lab.queue(), own.data, static_cast<std::size_t>(count) * size_of(lab.type()));
  for (const double value : lab.get(own).values) EXPECT_EQ(value, 0);
}

}  // namespace
}  // namespace xlate::test
