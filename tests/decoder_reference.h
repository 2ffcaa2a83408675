// This header makes decoders without an encoder of random weights: as model files, and as loops in
// double precision that follow the files' headers. Tests compare the programs of models/ with them.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tests/layer_reference.h"
#include "tests/model_builder.h"

namespace xlate::test {

/// Says how a random decoder differs from the plainest one. `network` and `output` are merged into
/// the header.
struct DecoderCase {
  std::string name;
  nlohmann::json stack, output;
  bool biases = false;
  // Both sublayers of a layer have the same norm before them, as one tensor in the file.
  bool one_norm = false;
};

/// Holds the file of a random decoder, and computes its logits.
class RandomDecoder {
 public:
  static constexpr std::int64_t kVocabulary = 29, kContext = 64;

  explicit RandomDecoder(const DecoderCase& of) : of_(of) {
    stack_ = {
        {"layers", 3},
        {"width", 16},
        {"causal", true},
        {"parallel", false},
        {"residual_scale", 1},
        {"embedding",
         {{"vocabulary", kVocabulary}, {"scale", 1}, {"positions", "none"}, {"norm", false}}},
        {"norm", {{"kind", "rms"}, {"epsilon", 1e-5}, {"places", {"before"}}, {"final", true}}},
        {"attention", {{"heads", 4}, {"kv_heads", 4}, {"head", 6}, {"scale", 0.6}}},
        {"feed_forward", {{"width", 20}, {"activation", "gelu"}, {"gated", false}}}};
    stack_.merge_patch(of.stack);
    output_ = {{"scale", 1}};
    if (of.output.is_object()) output_.merge_patch(of.output);
    builder_.header = {
        {"network", {{"decoder", stack_}, {"output", output_}}},
        {"tokens", {{"unknown", 1}}},
        {"generation",
         {{"max_source_length", kContext}, {"never_chosen", nlohmann::json::array()}}},
        {"tensors", nlohmann::json::array()},
        {"files", nlohmann::json::array()},
        {"provenance", {{"source", "tests"}}}};
    add_tensors();
  }

  const ModelBuilder& builder() const { return builder_; }

  /// Returns the logits behind each of these ids, [ids, kVocabulary].
  Matrix logits(const std::vector<std::int32_t>& ids) const {
    const auto n = std::ssize(ids);
    const auto& embedding = stack_["embedding"];
    Matrix x(n, width());
    for (std::int64_t p = 0; p < n; ++p) {
      for (std::int64_t c = 0; c < width(); ++c) {
        x(p, c) = at("decoder.embedding.weight")(ids[static_cast<std::size_t>(p)], c) *
                  embedding["scale"].get<double>();
        if (embedding["positions"] == "learned") x(p, c) += at("decoder.positions.weight")(p, c);
      }
    }
    if (embedding["norm"]) x = norm("decoder.embedding.norm", x);
    const double scale = stack_["residual_scale"];
    for (int i = 0; i < layers(); ++i) {
      const std::string self = fmt::format("decoder.{}.self", i),
                        feed_forward = fmt::format("decoder.{}.feed_forward", i);
      const Matrix start = x;
      for (const std::string& name : {self, feed_forward}) {
        const Matrix& read = stack_["parallel"] ? start : x;
        Matrix h = norm_at(name, "before", read);
        h = name == self ? attend(i, h) : feed(name, h);
        h = norm_at(name, "inside", h);
        for (std::size_t e = 0; e < h.values.size(); ++e) x.values[e] += scale * h.values[e];
        x = norm_at(name, "after", x);
      }
    }
    if (stack_["norm"]["final"]) x = norm("decoder.norm", x);
    Matrix logits = linear("decoder.projection", x);
    const double cap = output_.value("softcap", 0.0), factor = output_["scale"];
    for (double& logit : logits.values) {
      logit *= factor;
      if (cap > 0) logit = cap * std::tanh(logit / cap);
    }
    return logits;
  }

 private:
  std::int64_t number(const char* part, const char* key) const { return stack_[part][key]; }
  std::int64_t width() const { return stack_["width"]; }
  int layers() const { return stack_["layers"]; }
  const Matrix& at(const std::string& name) const { return tensors_.at(name); }
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }

  void add(const std::string& name, std::int64_t rows, std::int64_t columns, double size,
           double middle = 0) {
    Matrix matrix = random_matrix(random_, rows, columns, DType::kFloat32);
    std::string bytes;
    for (double& value : matrix.values) {
      value = static_cast<float>(middle + size * value);
      append_number(bytes, static_cast<float>(value));
    }
    const bool vector = name.ends_with(".bias") || name.ends_with("norm.weight") ||
                        name.find(".norm_") != std::string::npos || name.ends_with(".slopes");
    builder_.add_tensor(
        name, DType::kFloat32,
        vector ? std::vector<std::int64_t>{columns} : std::vector<std::int64_t>{rows, columns},
        bytes);
    tensors_[name] = std::move(matrix);
  }
  void add_norm(const std::string& name, std::int64_t columns) {
    add(name + ".weight", 1, columns, 0.5, 1);
    if (of_.biases) add(name + ".bias", 1, columns, 0.3);
  }
  void add_linear(const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", out, in, 1.5 / std::sqrt(static_cast<double>(in)));
    if (of_.biases) add(name + ".bias", 1, out, 0.3);
  }
  void add_norms(const std::string& name) {
    for (const nlohmann::json& place : stack_["norm"]["places"])
      add_norm(fmt::format("{}.norm_{}", name, place.get<std::string>()), width());
  }
  void add_tensors() {
    const std::int64_t heads = number("attention", "heads"), head = number("attention", "head"),
                       keys = number("attention", "kv_heads"),
                       inner = number("feed_forward", "width");
    add("decoder.embedding.weight", kVocabulary, width(), 1);
    if (stack_["embedding"]["positions"] == "learned")
      add("decoder.positions.weight", kContext, width(), 1);
    if (stack_["embedding"]["norm"]) add_norm("decoder.embedding.norm", width());
    for (int i = 0; i < layers(); ++i) {
      const std::string self = fmt::format("decoder.{}.self", i),
                        feed_forward = fmt::format("decoder.{}.feed_forward", i);
      add_linear(self + ".qkv", (heads + 2 * keys) * head, width());
      add_linear(self + ".out", width(), heads * head);
      add_norms(self);
      if (stack_["attention"].value("query_key_norm", false)) {
        add_norm(self + ".query_norm", head);
        add_norm(self + ".key_norm", head);
      }
      add_linear(feed_forward + ".up", stack_["feed_forward"]["gated"] ? 2 * inner : inner,
                 width());
      add_linear(feed_forward + ".down", width(), inner);
      if (of_.one_norm)
        repeat(self + ".norm_before", feed_forward + ".norm_before");
      else
        add_norms(feed_forward);
    }
    if (stack_["attention"].contains("rotary_dims")) {
      const auto& rates = stack_["attention"].value("rates", std::vector<int>{0});
      add("decoder.rotary.rates", *std::max_element(rates.begin(), rates.end()) + 1,
          number("attention", "rotary_dims") / 2, 1);
    }
    if (stack_["attention"].value("slope", false)) add("decoder.self.slopes", 1, heads, 0.5);
    if (stack_["norm"]["final"]) add_norm("decoder.norm", width());
    add_linear("decoder.projection", kVocabulary, width());
  }
  // Lists the tensors of a norm a second time, with the same place in the file.
  void repeat(const std::string& from, const std::string& to) {
    for (const std::string part : {".weight", ".bias"}) {
      if (!has(from + part)) continue;
      nlohmann::json entry = builder_.tensor(from + part);
      entry["name"] = to + part;
      builder_.header["tensors"].push_back(entry);
      tensors_[to + part] = at(from + part);
    }
  }

  Matrix linear(const std::string& name, const Matrix& x) const {
    const Matrix& weight = at(name + ".weight");
    Matrix out(x.rows, weight.rows);
    for (std::int64_t r = 0; r < x.rows; ++r) {
      for (std::int64_t o = 0; o < weight.rows; ++o) {
        if (has(name + ".bias")) out(r, o) = at(name + ".bias")(0, o);
        for (std::int64_t i = 0; i < x.columns; ++i) out(r, o) += x(r, i) * weight(o, i);
      }
    }
    return out;
  }
  // Norms the columns [first, first + gain.columns) of each row.
  void norm_columns(const std::string& name, Matrix& x, std::int64_t first) const {
    const Matrix& gain = at(name + ".weight");
    const auto size = static_cast<double>(gain.columns);
    for (std::int64_t r = 0; r < x.rows; ++r) {
      double mean = 0, squares = 0;
      for (std::int64_t c = 0; c < gain.columns; ++c) mean += x(r, first + c) / size;
      if (stack_["norm"]["kind"] == "rms") mean = 0;
      for (std::int64_t c = 0; c < gain.columns; ++c)
        squares += (x(r, first + c) - mean) * (x(r, first + c) - mean) / size;
      for (std::int64_t c = 0; c < gain.columns; ++c) {
        x(r, first + c) = (x(r, first + c) - mean) / std::sqrt(squares + 1e-5) * gain(0, c);
        if (has(name + ".bias")) x(r, first + c) += at(name + ".bias")(0, c);
      }
    }
  }
  Matrix norm(const std::string& name, Matrix x) const {
    norm_columns(name, x, 0);
    return x;
  }
  // Returns the norm of a sublayer at a place, or x where it has none there.
  Matrix norm_at(const std::string& name, const char* place, const Matrix& x) const {
    const std::string norm_name = fmt::format("{}.norm_{}", name, place);
    return has(norm_name + ".weight") ? norm(norm_name, x) : x;
  }
  Matrix feed(const std::string& name, const Matrix& x) const {
    static const std::map<std::string, Activation> kActivations{
        {"relu", Activation::kRelu},
        {"swish", Activation::kSwish},
        {"gelu", Activation::kGelu},
        {"gelu_tanh", Activation::kGeluTanh}};
    const Activation activation = kActivations.at(stack_["feed_forward"]["activation"]);
    const Matrix up = linear(name + ".up", x);
    Matrix inner(x.rows, number("feed_forward", "width"));
    for (std::int64_t r = 0; r < x.rows; ++r) {
      for (std::int64_t c = 0; c < inner.columns; ++c) {
        inner(r, c) = activated(up(r, c), activation);
        if (stack_["feed_forward"]["gated"]) inner(r, c) *= up(r, inner.columns + c);
      }
    }
    return linear(name + ".down", inner);
  }
  // Norms and rotates the heads of queries and keys.
  void transform(int layer, Matrix& qkv) const {
    const auto& attention = stack_["attention"];
    const std::int64_t heads = attention["heads"], keys = attention["kv_heads"],
                       head = attention["head"];
    const std::int64_t pairs = attention.value("rotary_dims", 0) / 2;
    const int row = attention.contains("rates")
                        ? attention["rates"][static_cast<std::size_t>(layer)].get<int>()
                        : 0;
    for (std::int64_t h = 0; h < heads + keys; ++h) {
      const std::string name =
          fmt::format("decoder.{}.self.{}_norm", layer, h < heads ? "query" : "key");
      if (has(name + ".weight")) norm_columns(name, qkv, h * head);
      for (std::int64_t p = 0; row >= 0 && p < qkv.rows; ++p) {
        for (std::int64_t j = 0; j < pairs; ++j) {
          const double angle = static_cast<double>(p) * at("decoder.rotary.rates")(row, j);
          double &a = qkv(p, h * head + j), &b = qkv(p, h * head + pairs + j);
          const double first = a, second = b;
          a = first * std::cos(angle) - second * std::sin(angle);
          b = second * std::cos(angle) + first * std::sin(angle);
        }
      }
    }
  }
  Matrix attend(int layer, const Matrix& x) const {
    const auto& attention = stack_["attention"];
    const std::int64_t heads = attention["heads"], keys = attention["kv_heads"],
                       head = attention["head"], group = heads / keys;
    const std::int64_t window =
        attention.contains("windows")
            ? attention["windows"][static_cast<std::size_t>(layer)].get<std::int64_t>()
            : 0;
    const double scale = attention["scale"], cap = attention.value("softcap", 0.0);
    Matrix qkv = linear(fmt::format("decoder.{}.self.qkv", layer), x);
    transform(layer, qkv);
    Matrix context(x.rows, heads * head);
    for (std::int64_t p = 0; p < x.rows; ++p) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t key = (heads + h / group) * head, value = key + keys * head,
                           first = window > 0 ? std::max<std::int64_t>(0, p - window + 1) : 0;
        std::vector<double> weights;
        double sum = 0;
        for (std::int64_t t = first; t <= p; ++t) {
          double score = 0;
          for (std::int64_t i = 0; i < head; ++i) score += qkv(p, h * head + i) * qkv(t, key + i);
          score *= scale;
          if (cap > 0) score = cap * std::tanh(score / cap);
          if (has("decoder.self.slopes"))
            score += at("decoder.self.slopes")(0, h) * static_cast<double>(t - p);
          weights.push_back(std::exp(score));
          sum += weights.back();
        }
        for (std::int64_t t = first; t <= p; ++t) {
          for (std::int64_t i = 0; i < head; ++i)
            context(p, h * head + i) +=
                weights[static_cast<std::size_t>(t - first)] / sum * qkv(t, value + i);
        }
      }
    }
    return linear(fmt::format("decoder.{}.self.out", layer), context);
  }

  DecoderCase of_;
  nlohmann::json stack_, output_;
  ModelBuilder builder_;
  std::map<std::string, Matrix> tensors_;
  Random random_{3};
};

}  // namespace xlate::test
