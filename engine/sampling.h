// The arithmetic of random draws, which the CPU and kernels share. It is done in whole numbers, so
// that the order of sums does not matter and both backends draw the same token wherever their
// probabilities are the same.
#pragma once

#include <cmath>
#include <cstdint>

#include "engine/everywhere.h"

namespace xlate {

/// Says how a token is drawn. The logits are divided by the temperature, top-k keeps the ids whose
/// logits are not below the k-th largest one, and top-p keeps the smallest set of the most probable
/// ids whose probabilities reach p (Holtzman et al. 2020). One id of what is left is drawn.
struct Sampling {
  float temperature = 1;   // It is above 0.
  std::int32_t top_k = 0;  // 0 keeps all.
  float top_p = 1;         // 1 keeps all.
  std::uint64_t seed = 0;
};

/// Names a draw. No other thing has an influence on its random number.
struct DrawName {
  std::int64_t line = 0;
  std::int32_t draw = 0;  // the number of the draw among those of the line
  std::int32_t step = 0;  // the number of tokens before the one that is drawn, behind the prefix
};

/// Returns 64 random bits by Philox4x32-10 (Salmon et al. 2011), whose key is the seed and whose
/// counter is the name.
XLATE_EVERYWHERE inline std::uint64_t random_bits(std::uint64_t seed, const DrawName& name) {
  const auto line = static_cast<std::uint64_t>(name.line);
  std::uint32_t counter[4] = {
      static_cast<std::uint32_t>(name.step), static_cast<std::uint32_t>(name.draw),
      static_cast<std::uint32_t>(line), static_cast<std::uint32_t>(line >> 32)};
  std::uint32_t key[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0],
                        b = std::uint64_t{0xCD9E8D57} * counter[2];
    const std::uint32_t next[4] = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    for (int i = 0; i < 4; ++i) counter[i] = next[i];
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
  return std::uint64_t{counter[0]} << 32 | counter[1];
}

/// Returns the high half of the product, which is ⌊a·b / 2⁶⁴⌋: a random number below a if b is one
/// of 64 bits.
XLATE_EVERYWHERE inline std::uint64_t high_product(std::uint64_t a, std::uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
#endif
}

/// Returns the weight of an id whose logit is `below` ≤ 0 above the largest one, in units of 2⁻⁴⁰
/// of the weight of the largest. The sum over 2²³ ids fits into 64 bits. Ids that are 10¹² times
/// less probable than the best one have no weight.
XLATE_EVERYWHERE inline std::uint64_t sampling_weight(float below, float temperature) {
  return static_cast<std::uint64_t>(expf(below / temperature) * 1099511627776.0f);
}

/// Returns how much weight top-p keeps of a sum, at least 1.
XLATE_EVERYWHERE inline std::uint64_t weight_to_reach(float top_p, std::uint64_t sum) {
  const double wanted = ceil(static_cast<double>(top_p) * static_cast<double>(sum));
  const auto reach = static_cast<std::uint64_t>(wanted);
  return reach < 1 ? 1 : reach < sum ? reach : sum;
}

}  // namespace xlate
