// Tests the line by which the lengths of targets are expected.
#include "engine/length_line.h"

#include <gtest/gtest.h>

#include "tests/support.h"

namespace xlate {
namespace {

TEST(LengthLine, BeginsAsItIsTold) {
  const LengthLine line(1.5, 4, 24, 170, 11000);
  for (const double source : {0, 1, 24, 300}) EXPECT_NEAR(line.at(source), 1.5 * source + 4, 1e-9);
}

TEST(LengthLine, FindsALineThroughNoise) {
  LengthLine line(1.125, 4, 24, 10, 1e6);
  test::Random random(1);
  for (int i = 0; i < 20'000; ++i) {
    const double source = test::whole(random, 1, 80);
    line.add(source, 0.8 * source + 11 + test::uniform(random, -9, 9));
  }
  for (const double source : {1, 30, 80}) EXPECT_NEAR(line.at(source), 0.8 * source + 11, 0.3);
}

TEST(LengthLine, TargetsMayAllBeEquallyLong) {
  LengthLine line(1.125, 4, 24, 10, 1e6);
  for (int i = 0; i < 10'000; ++i) line.add(1 + i % 80, 30);
  for (const double source : {1, 30, 80}) EXPECT_NEAR(line.at(source), 30, 0.2);
}

// Sources that are all equally long say nothing of the slope.
TEST(LengthLine, KeepsItsSlopeWhereSourcesAreEqual) {
  LengthLine line(2, 4, 24, 100, 1e9);
  for (int i = 0; i < 1'000'000; ++i) line.add(24, 10);
  EXPECT_NEAR(line.at(24), 10, 0.01);
  EXPECT_NEAR(line.at(34), 10 + 20, 0.01);
  LengthLine level(0, 132, 0, 170, 1e9);
  for (int i = 0; i < 100'000; ++i) level.add(0, 50);
  EXPECT_NEAR(level.at(0), 50, 0.2);
  EXPECT_NEAR(level.at(90), 50, 0.2);
}

// A line that falls would give long sources too little room.
TEST(LengthLine, NeverFalls) {
  LengthLine line(1.125, 4, 24, 10, 1e6);
  for (int i = 0; i < 10'000; ++i) line.add(1 + i % 80, 100 - i % 80);
  EXPECT_EQ(line.at(80), line.at(1));
}

TEST(LengthLine, ForgetsWhatIsLongAgo) {
  LengthLine line(1.125, 4, 24, 170, 1000);
  for (int i = 0; i < 100'000; ++i) line.add(1 + i % 80, 200);
  for (int i = 0; i < 5'000; ++i) line.add(1 + i % 80, 20);
  for (const double source : {1, 80}) EXPECT_NEAR(line.at(source), 20, 10);
}

}  // namespace
}  // namespace xlate
