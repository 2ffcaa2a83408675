// Implements the attention of CudaBackend: which kernel serves which operation, the key lists of a
// step, and the keys that are copied to caches.
#include "engine/cuda/attention/attention.h"

#include <algorithm>

#include "engine/cuda/cuda_backend.h"
#include "engine/cuda/tensors.h"
#include "engine/error.h"

namespace xlate::cuda {
namespace {

// A step has counters (KeyLists::taken) for this many self-attentions and as many cross-attentions.
// With a counter the blocks of an attention share its beam tiles.
constexpr int kAttentionsOfAStep = 128;

CacheView view_of(const PagedCache& cache) {
  return {.pages = cache.pages.data,
          .table = cache.table,
          .pages_per_slot = cache.pages_per_slot,
          .page_tokens = cache.page_tokens,
          .keys_per_token = cache.keys_per_token};
}

void check_head(const Attention& attention) {
  constexpr std::int64_t kMostColumns = 256;
  if (attention.head > kMostColumns)
    fail("CUDA: attention has heads of {} columns, expected at most {}", attention.head,
         kMostColumns);
}

template <class T>
AttendArgs<T> attend_args(const Tensor& query, const Attention& attention, const Tensor& out) {
  check_head(attention);
  const Tensor& bias = attention.distance_bias;
  return {.query = data_of<T>(query),
          .out = data_of<T>(out),
          .query_stride = query.stride,
          .out_stride = out.stride,
          .width = out.columns,
          .heads = attention.heads,
          .scale = attention.scale,
          .distance_bias = data_of<float>(bias),
          .distances = static_cast<int>(bias.columns / 2),
          .group = attention.group(),
          .key_width = attention.key_width(),
          .softcap = attention.softcap,
          .window = attention.window,
          .slopes = data_of<float>(attention.slopes)};
}

template <class T>
HeadArgs<T> head_args(const Tensor& qkv, const HeadTransform& transform,
                      const Attention& attention) {
  check_head(attention);
  // Both norms of a network have the same epsilon and kind.
  return {.queries_keys = data_of<T>(qkv),
          .rows = qkv.rows,
          .stride = qkv.stride,
          .heads = attention.heads,
          .key_heads = attention.heads / attention.group(),
          .head = static_cast<int>(attention.head),
          .query_gain = data_of<float>(transform.query_norm.gain),
          .query_shift = data_of<float>(transform.query_norm.shift),
          .key_gain = data_of<float>(transform.key_norm.gain),
          .key_shift = data_of<float>(transform.key_norm.shift),
          .epsilon = transform.query_norm.epsilon,
          .rms = transform.query_norm.kind == NormKind::kRms,
          .rates = data_of<float>(transform.rates),
          .pairs = static_cast<int>(transform.rates.columns)};
}

}  // namespace

void CudaBackend::note_attention(AttentionKernel kernel, const Attention& attention,
                                 const PagedCaches& caches) {
  if (kernel == AttentionKernel::kStream) return paths_.fast(KernelPaths::Of::kAttention);
  paths_.slow(KernelPaths::Of::kAttention, [&] {
    if (const std::string reason = general_reason(); !reason.empty()) return reason;
    if (caches.cross.empty()) return std::string("keys of a prompt");
    return fmt::format("{} heads of width {}", attention.heads, attention.head);
  });
}

void CudaBackend::transform_heads(Queue& queue, Tensor qkv, const PackedRows& rows,
                                  const HeadTransform& transform, const Attention& attention) {
  with_type(qkv.dtype, [&](auto tag) {
    xlate::cuda::transform_heads(head_args<decltype(tag)>(qkv, transform, attention),
                                 rows.positions, flushed_stream(queue));
  });
}

void CudaBackend::transform_heads(Queue& queue, Tensor qkv, const Step& step,
                                  const HeadTransform& transform, const Attention& attention) {
  with_type(qkv.dtype, [&](auto tag) {
    xlate::cuda::transform_heads(head_args<decltype(tag)>(qkv, transform, attention), step.state,
                                 step.rows, step.caches.tokens_before(), flushed_stream(queue));
  });
}

void CudaBackend::attend_self(Queue& queue, Tensor qkv, const PackedRows& rows,
                              const Attention& attention, Tensor out) {
  with_type(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const AttendArgs<T> args = attend_args<T>(qkv, attention, out);
    if (!plain(args)) fail("CUDA: attention within whole sentences is not plain");
    attend_packed<T>(args, rows.offsets, std::ssize(rows.offsets_host) - 1, out.rows,
                     flushed_stream(queue));
  });
}

void CudaBackend::attend_prompts(Queue& queue, Tensor queries, Tensor keys_values,
                                 const PackedRows& rows, const Attention& attention, Tensor out) {
  with_type(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    xlate::cuda::attend_prompts<T>(attend_args<T>(queries, attention, out),
                                   {data_of<T>(keys_values), keys_values.stride, rows.first},
                                   rows.offsets, std::ssize(rows.offsets_host) - 1, out.rows,
                                   flushed_stream(queue));
  });
}

void CudaBackend::grow_key_lists(StepKeys& keys, std::int64_t beam_tiles, std::int64_t stride) {
  grow(keys.headers, beam_tiles * static_cast<std::int64_t>(sizeof(int2)));
  grow(keys.entries, beam_tiles * stride * static_cast<std::int64_t>(sizeof(KeyEntry)));
  grow(keys.taken, kAttentionsOfAStep * static_cast<std::int64_t>(sizeof(int)));
  keys.lists = {.headers = keys.headers.as<int2>(),
                .entries = keys.entries.as<KeyEntry>(),
                .stride = stride,
                .taken = keys.taken.as<int>(),
                .launches = kAttentionsOfAStep};
}

KeyLists CudaBackend::next_attention(StepKeys& keys) {
  const KeyLists lists = keys.lists;
  if (keys.lists.launches > 0) ++keys.lists.taken, --keys.lists.launches;
  return lists;
}

void CudaBackend::prepare_key_lists(Queue& queue, const Step& step) {
  const auto& [state, rows, caches] = step;
  if (caches.self.empty()) fail("CUDA: a step has no self caches, expected at least one");
  if (caches.cross.empty()) return;
  const PagedCache &own = caches.self.front(), &source = caches.cross.front();
  // Empty groups have beam tiles, too.
  const std::int64_t beam_tiles = key_list_count(std::max(state.slots, rows.groups), state.beams);
  grow_key_lists(self_keys_, beam_tiles, key_list_stride(state.longest, state.beams));
  grow_key_lists(cross_keys_, beam_tiles,
                 key_list_stride(source.pages_per_slot * source.page_tokens, 1));
  build_key_lists(cuda::view_of(own), cuda::view_of(source), caches.source_lengths, state, rows,
                  self_keys_.lists, cross_keys_.lists, flushed_stream(queue));
}

void CudaBackend::attend_self(Queue& queue, Tensor qkv, const Step& step, std::size_t layer,
                              const Attention& attention, Tensor out) {
  ensure_key_lists(queue, step);
  const PagedCaches& caches = step.caches;
  with_type(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const AttendArgs<T> args = attend_args<T>(qkv, attention, out);
    const CacheView own = cuda::view_of(caches.self[layer]);
    // Only steps with a source have key lists.
    if (caches.cross.empty()) {
      const SharedKeys shared{
          caches.shared.empty() ? CacheView{} : cuda::view_of(caches.shared[layer]),
          caches.tokens_before()};
      attend_self_rows(args, own, shared, step.state, step.rows, flushed_stream(queue));
      return note_attention(AttentionKernel::kRowByRow, attention, caches);
    }
    note_attention(xlate::cuda::attend_self<T>(args, own, step.state, step.rows,
                                               next_attention(self_keys_), flushed_stream(queue)),
                   attention, caches);
  });
}

void CudaBackend::attend_cross(Queue& queue, Tensor query, const Step& step, std::size_t layer,
                               const Attention& attention, Tensor out) {
  ensure_key_lists(queue, step);
  with_type(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    note_attention(xlate::cuda::attend_cross<T>(attend_args<T>(query, attention, out),
                                                cuda::view_of(step.caches.cross[layer]),
                                                step.caches.source_lengths, step.rows,
                                                next_attention(cross_keys_), flushed_stream(queue)),
                   attention, step.caches);
  });
}

void CudaBackend::attend_cross(Queue& queue, Tensor query, const PackedRows& rows,
                               Tensor keys_values, const Attention& attention, Tensor out) {
  with_type(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    attend_packed_sources<T>(attend_args<T>(query, attention, out),
                             {data_of<T>(keys_values), keys_values.stride, rows.first},
                             rows.offsets, rows.sources->offsets, std::ssize(rows.offsets_host) - 1,
                             out.rows, flushed_stream(queue));
  });
}

void CudaBackend::align(Queue& queue, Tensor query, const PackedRows& rows, Tensor keys_values,
                        const Attention& attention, const HeadSet& heads, std::int32_t* out) {
  if (attention.heads > HeadSet::kMost)
    fail("CUDA: alignment by {} heads, expected at most {}", attention.heads, HeadSet::kMost);
  with_type(query.dtype, [&](auto tag) {
    using T = decltype(tag);
    xlate::cuda::align<T>(attend_args<T>(query, attention, query),
                          {data_of<T>(keys_values), keys_values.stride, rows.first}, rows.offsets,
                          rows.sources->offsets, std::ssize(rows.offsets_host) - 1, query.rows,
                          heads, out, flushed_stream(queue));
  });
}

void CudaBackend::store_keys(Queue& queue, Tensor keys_values, const std::int32_t* token_slots,
                             const std::int32_t* positions, std::span<const PagedCache> layers) {
  const std::int64_t width = keys_values.columns / static_cast<std::int64_t>(layers.size());
  with_type(keys_values.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      xlate::cuda::store_keys<T>(data_of<T>(keys_values) + static_cast<std::int64_t>(i) * width,
                                 keys_values.stride, keys_values.rows, width, token_slots,
                                 positions, cuda::view_of(layers[i]), flushed_stream(queue));
    }
  });
}

}  // namespace xlate::cuda
