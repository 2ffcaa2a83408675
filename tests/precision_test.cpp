// Tests in which precision a run computes, by the command line, the model and the device.
#include <gtest/gtest.h>

#include "app/resolve_options.h"

namespace xlate::test {
namespace {

NetworkDescription network(bool overflows_float16) {
  NetworkDescription network;
  network.overflows_float16 = overflows_float16;
  return network;
}

TEST(Precision, AutoAvoidsFloat16WhereTheNetworkOverflowsIt) {
  constexpr Precision kAuto = Precision::kAuto;
  EXPECT_EQ(effective_precision(kAuto, network(false), true), Precision::kFloat16);
  EXPECT_EQ(effective_precision(kAuto, network(true), true), Precision::kBFloat16);
  EXPECT_EQ(effective_precision(kAuto, network(false), false), Precision::kFloat32);
  EXPECT_EQ(effective_precision(kAuto, network(true), false), Precision::kFloat32);
}

TEST(Precision, ThatOfTheCommandLineWins) {
  for (const Precision asked : {Precision::kFloat32, Precision::kFloat16, Precision::kBFloat16})
    EXPECT_EQ(effective_precision(asked, network(true), true), asked);
}

TEST(Precision, TheRunKeepsTheEffectiveOne) {
  Options options;
  options.beam_size = 4;
  resolve_device(options, network(true), policy_for(true, 1), true);
  EXPECT_EQ(options.precision, Precision::kBFloat16);
  EXPECT_EQ(options.device, "cuda:0");
}

}  // namespace
}  // namespace xlate::test
