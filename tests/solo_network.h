// This header has the networks of random weights that solo_step_test.cpp decodes with.
#pragma once

#include <gtest/gtest.h>

#include <numeric>

#include "engine/search.h"
#include "engine/workspace.h"
#include "tests/support.h"
#include "tests/table_model.h"

namespace xlate::test {

/// A sentence of `source` tokens is decoded to at most `steps` tokens. The solo kernel can run the
/// shape only if `fits`.
struct SoloShape {
  int beams;
  std::int64_t heads, head, layers, ffn, vocabulary;
  int source, steps;
  Activation activation = Activation::kRelu;
  bool biases = true, renormalize = false, fits = true, low_bits = true;
  std::vector<std::int32_t> never_chosen = {};
  // The norms are before the sublayers, with a last one behind all layers. Otherwise they are after
  // the sublayers.
  bool before = false;
  bool embedding_norm = false, gated = false, positions = true, shifts = true;
  NormKind norm = NormKind::kLayer;
  // It is the scale of the scores, unless that is 1/√head.
  float scale = 0;
  // The distance bias of self-attention has 2·distances + 1 columns, or there is none.
  std::int64_t distances = 0;
  // It is the model width, unless that is the width of all heads.
  std::int64_t columns = 0;
  std::int64_t attention_width() const { return heads * head; }
  std::int64_t width() const { return columns > 0 ? columns : attention_width(); }
};

/// This is the result of decoding with one backend.
struct SoloDecoded {
  std::vector<Outcome> outcomes;
  // `at_once` is the largest number of steps that one launch was to run. Only the solo kernel runs
  // more than one.
  std::int64_t at_once = 0;
};

/// Decodes with a decoder that has random weights and random source keys. It is the same
/// network for all backends that compute in the same type.
class SoloNetwork {
 public:
  SoloNetwork(const BackendUnderTest& test, const SoloShape& shape) : lab_(test), shape_(shape) {
    const std::int64_t width = shape.width(), attention = shape.attention_width();
    std::vector<std::int32_t> table(kPages);
    std::iota(table.rbegin(), table.rend(), 0);
    cache_table_ = lab_.put(table);
    table_ = {weight(shape.vocabulary, width, 1),
              shape.positions ? lab_.put(random_matrix(random_, kPositions, width, DType::kFloat32),
                                         DType::kFloat32)
                              : Tensor{},
              1.5f};
    for (std::int64_t i = 0; i < shape.layers; ++i) {
      layers_.push_back({linear(3 * attention, width), linear(width, attention), norm(),
                         linear(attention, width), linear(width, attention), norm(),
                         linear(shape.gated ? 2 * shape.ffn : shape.ffn, width),
                         linear(width, shape.ffn), norm(), cache(shape.beams), cache(1)});
    }
    if (shape.distances > 0)
      distance_bias_ =
          lab_.put(random_matrix(random_, shape.heads, 2 * shape.distances + 1, DType::kFloat32),
                   DType::kFloat32);
    if (shape.embedding_norm) embedding_norm_ = norm();
    if (shape.before) final_norm_ = norm();
    projection_ = {{lab_.put_weight(
                        scaled(shape.vocabulary, width, 2 / std::sqrt(static_cast<double>(width)))),
                    shape.biases
                        ? lab_.put(random_matrix(random_, 1, shape.vocabulary, DType::kFloat32),
                                   DType::kFloat32)
                        : Tensor{}}};
    caches_.source_lengths = lab_.put(std::vector<std::int32_t>{shape.source});
    write();
  }

  SoloDecoded decode() {
    SearchRules rules{.beams = shape_.beams,
                      .start = 0,
                      .ends = {1},
                      .renormalize = shape_.renormalize,
                      .never_chosen = shape_.never_chosen};
    Queue& queue = lab_.queue();
    Search search(*lab_, queue, rules, 1, shape_.steps);
    const StepRows rows{lab_.put(std::vector<std::int32_t>{0}), 1, shape_.beams};
    const SlotStart start{.slot = 0, .limit = shape_.steps};
    SoloDecoded result;
    // The second sentence finds the step recorded.
    for (int sentence = 0; sentence < 2; ++sentence) {
      search.start({&start, 1});
      std::int64_t steps = 0;
      for (bool done = false; !done;) {
        const std::int64_t ran = lab_->repeat(
            queue, 1, std::min<std::int64_t>(7, shape_.steps - steps), [&] { step(search, rows); });
        result.at_once = std::max(result.at_once, ran);
        steps += ran;
        const auto flags = search.read_done();
        std::int32_t flag = 0;
        std::memcpy(&flag, flags->wait().data(), sizeof flag);
        done = flag != 0;
        if (!done && steps >= shape_.steps) break;
      }
      // A step of a sentence that is done changes nothing.
      lab_->repeat(queue, 1, 1, [&] { step(search, rows); });
      search.read_done()->wait();
      for (const SearchResult& found : search.collect(std::vector<std::int32_t>{start.slot}))
        result.outcomes.push_back(outcome_of(found));
    }
    lab_.clear();
    return result;
  }

 private:
  static constexpr std::int64_t kPositions = 256, kPageTokens = 16, kPages = 16;
  struct Layer {
    Linear qkv, out;
    Norm norm;
    Linear query, cross_out;
    Norm cross_norm;
    Linear up, down;
    Norm last_norm;
    PagedCache self, cross;
  };

  Matrix scaled(std::int64_t rows, std::int64_t columns, double by) {
    Matrix matrix = random_matrix(random_, rows, columns, lab_.type());
    for (double& value : matrix.values) value = rounded(lab_.type(), value * by);
    return matrix;
  }
  Tensor weight(std::int64_t rows, std::int64_t columns, double by) {
    return lab_.put(scaled(rows, columns, by), lab_.type());
  }
  Linear linear(std::int64_t rows, std::int64_t columns) {
    return {lab_.put_weight(scaled(rows, columns, 1.7 / std::sqrt(static_cast<double>(columns)))),
            shape_.biases ? weight(1, rows, 0.5) : Tensor{}};
  }
  Norm norm() {
    Matrix gain = random_matrix(random_, 1, shape_.width(), DType::kFloat32);
    for (double& value : gain.values) value = 1 + value / 4;
    return {lab_.put(gain, DType::kFloat32),
            shape_.shifts ? lab_.put(random_matrix(random_, 1, shape_.width(), DType::kFloat32),
                                     DType::kFloat32)
                          : Tensor{},
            1e-5f, shape_.norm};
  }
  PagedCache cache(std::int64_t keys_per_token) {
    return {weight(kPages * kPageTokens * keys_per_token, 2 * shape_.attention_width(), 1),
            cache_table_, kPages, kPageTokens, keys_per_token};
  }

  // Writes the program of a decoding step as models/programs.cpp does, and makes its workspace. The
  // residual stream may lack low bits, which a workspace that allocates its own memory cannot leave
  // out.
  void write() {
    const std::int64_t width = shape_.width(), attention_width = shape_.attention_width();
    x_ = tensor(TensorKind::kResidual, width), sums_ = tensor(TensorKind::kAccumulator, width);
    if (shape_.before) normed_ = tensor(TensorKind::kComputeType, width);
    const TensorId context = tensor(TensorKind::kComputeType, attention_width),
                   inner = tensor(TensorKind::kComputeType, shape_.ffn),
                   qkv = tensor(TensorKind::kComputeType, 3 * attention_width),
                   query = tensor(TensorKind::kComputeType, attention_width),
                   gate = tensor(TensorKind::kComputeType, 2 * shape_.ffn),
                   from = shape_.before ? normed_ : x_;
    Attention cross = usual_attention(attention_width, static_cast<int>(shape_.heads));
    if (shape_.scale != 0) cross.scale = shape_.scale;
    Attention self = cross;
    self.distance_bias = distance_bias_;
    program_.add(Embed{table_, x_});
    if (shape_.embedding_norm || shape_.before)
      program_.add(
          AddNorm{x_, x_, embedding_norm_, shape_.before ? layers_.front().norm : Norm{}, normed_});
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      program_.add(ApplyLinear{from, layer.qkv, Activation::kNone, qkv});
      program_.add(AttendSelf{qkv, i, self, context});
      add_norm(context, layer.out, layer.norm, layer.cross_norm);
      program_.add(ApplyLinear{from, layer.query, Activation::kNone, query});
      program_.add(AttendCross{query, i, cross, context});
      add_norm(context, layer.cross_out, layer.cross_norm, layer.last_norm);
      if (shape_.gated) {
        program_.add(ApplyLinear{from, layer.up, Activation::kNone, gate});
        program_.add(ApplyGate{gate, shape_.activation, inner});
      } else {
        program_.add(ApplyLinear{from, layer.up, shape_.activation, inner});
      }
      add_norm(inner, layer.down, layer.last_norm,
               i + 1 < layers_.size() ? layers_[i + 1].norm : final_norm_);
      caches_.self.push_back(layer.self), caches_.cross.push_back(layer.cross);
    }
    program_.set_out(from);
    workspace_ = Workspace(rows_);
  }
  // Adds the last product of a sublayer and its addition to the stream. Behind them is the norm
  // after this sublayer or the norm before the next one.
  void add_norm(TensorId from, const Linear& layer, const Norm& after, const Norm& before) {
    program_.add(ApplyLinear{from, layer, Activation::kNone, sums_});
    if (shape_.before)
      program_.add(AddNorm{x_, sums_, {}, before, normed_});
    else
      program_.add(AddNorm{x_, sums_, after});
  }
  TensorId tensor(TensorKind kind, std::int64_t columns) {
    ResidualRows rows(lab_.uninitialized(
        shape_.beams, columns, kind == TensorKind::kAccumulator ? DType::kFloat32 : lab_.type()));
    if (kind == TensorKind::kResidual && shape_.low_bits)
      rows.low_bits = lab_.uninitialized(shape_.beams, columns, DType::kInt8);
    rows_.push_back(rows);
    return program_.tensor(kind, columns);
  }
  void step(Search& search, const StepRows& rows) {
    search.step(program_, workspace_, caches_, rows, projection_);
  }

  Lab lab_;
  SoloShape shape_;
  Random random_{7};
  Embedding table_;
  std::vector<Layer> layers_;
  Norm embedding_norm_, final_norm_;
  Tensor distance_bias_;
  Projection projection_;
  std::int32_t* cache_table_ = nullptr;
  Program program_;
  TensorId x_, sums_, normed_;
  std::vector<ResidualRows> rows_;
  Workspace workspace_;
  PagedCaches caches_;
};

}  // namespace xlate::test
