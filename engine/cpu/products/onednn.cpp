// Implements products by oneDNN's matmul with weights in the layout that it chooses. oneDNN makes
// machine code for each number of rows, which takes some 0.1 ms and is done when such a product is
// first needed.
#include <omp.h>
#include <sys/mman.h>

#include <oneapi/dnnl/dnnl_debug.h>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/cpu/products/product_library.h"
#include "engine/error.h"
#include "engine/limits.h"

// checked() has each call run on the calling thread alone by a setting of OpenMP.
#if DNNL_CPU_RUNTIME != DNNL_RUNTIME_OMP && DNNL_CPU_RUNTIME != DNNL_RUNTIME_SEQ
#error "oneDNN must have been built with OpenMP, or without threads"
#endif

namespace xlate::cpu {
namespace {

using dnnl::memory;

// Whoever makes descriptions and primitives holds this. oneDNN compares a new one with those that
// other threads have made, and the thread sanitizer saw its version 2.6 do so without an order.
std::mutex making;

memory::data_type weight_type(DType type) {
  switch (type) {
    case DType::kInt8:
      return memory::data_type::s8;
    case DType::kBFloat16:
      return memory::data_type::bf16;
    default:
      return memory::data_type::f32;
  }
}

memory::data_type input_type(memory::data_type weights) {
  return weights == memory::data_type::s8 ? memory::data_type::u8 : weights;
}

memory::data_type output_type(memory::data_type weights) {
  return weights == memory::data_type::s8 ? memory::data_type::s32 : memory::data_type::f32;
}

// Calls the library and turns its exceptions into those of xlate.
template <class Call>
auto checked(const Call& call) {
  // xlate has threads of its own, each of which calls oneDNN for itself. This is a setting of each
  // thread.
  static thread_local const bool alone = (omp_set_num_threads(1), true);
  static_cast<void>(alone);
  try {
    return call();
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(fmt::format("out of memory: oneDNN{}", memory_limits()));
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory)
      throw OutOfMemory(fmt::format("out of memory: oneDNN: {}{}", error.what(), memory_limits()));
    fail("oneDNN: {}", error.what());
  }
}

// Throws OutOfMemory unless there is room for machine code. oneDNN would not survive it if the
// system refused memory for that.
void check_room() {
  constexpr std::size_t kBytes = std::size_t{16} << 20;
  void* room = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) {
    throw OutOfMemory(fmt::format("out of memory: oneDNN needs {} kB of address space{}",
                                  kBytes / 1024, memory_limits()));
  }
  munmap(room, kBytes);
}

// Returns the description of rows [rows, columns] that lie next to each other.
memory::desc rows_of(std::int64_t rows, std::int64_t columns, memory::data_type type) {
  return {{rows, columns}, type, memory::dims{columns, 1}};
}

// Holds the product of one number of rows, with the descriptions of its operands.
struct Kernel {
  memory::desc x, weights, out, scratchpad;
  dnnl::matmul product;
  // The kernels of the process are numbered from 0.
  std::size_t number;
};

std::size_t next_number() {
  static std::atomic<std::size_t> count{0};
  return count++;
}

// Holds the arguments of a kernel in a thread. To make them takes as long as a small product, so
// that they are kept.
struct Arguments {
  Arguments(const Kernel& kernel, const dnnl::engine& engine)
      : x(kernel.x, engine, DNNL_MEMORY_NONE),
        weights(kernel.weights, engine, DNNL_MEMORY_NONE),
        out(kernel.out, engine, DNNL_MEMORY_NONE),
        scratchpad(kernel.scratchpad, engine),
        all{{DNNL_ARG_SRC, x},
            {DNNL_ARG_WEIGHTS, weights},
            {DNNL_ARG_DST, out},
            {DNNL_ARG_SCRATCHPAD, scratchpad}} {}
  memory x, weights, out, scratchpad;
  std::unordered_map<int, memory> all;
};

Arguments& arguments_of(const Kernel& kernel, const dnnl::engine& engine) {
  static thread_local std::vector<std::unique_ptr<Arguments>> kept;
  if (kept.size() <= kernel.number) kept.resize(kernel.number + 1);
  std::unique_ptr<Arguments>& arguments = kept[kernel.number];
  if (!arguments) arguments = std::make_unique<Arguments>(kernel, engine);
  return *arguments;
}

class OneDnnProduct final : public PanelProduct {
 public:
  OneDnnProduct(const dnnl::engine& engine, DType type, std::int64_t n, std::int64_t d)
      : engine_(engine), stream_(engine), type_(weight_type(type)), n_(n), d_(d) {
    const dnnl::matmul::primitive_desc chosen =
        description(kLayoutRows, memory::desc({d, n}, type_, memory::format_tag::any));
    plain_ = memory::desc({d, n}, type_, memory::dims{1, d});
    packed_ = chosen.weights_desc();
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::reorder::primitive_desc packing(engine, plain_, engine, packed_, attributes);
    pack_ = dnnl::reorder(packing);
    pack_scratchpad_ = packing.scratchpad_desc();
    is_blocked_ = std::string_view(chosen.impl_info_str()).starts_with("brg");
  }

  std::size_t packed_bytes() const override { return packed_.get_size(); }

  void pack(const void* weights, void* packed) const override {
    checked([&] {
      pack_.execute(stream_, {{DNNL_ARG_FROM, {plain_, engine_, const_cast<void*>(weights)}},
                              {DNNL_ARG_TO, {packed_, engine_, packed}},
                              {DNNL_ARG_SCRATCHPAD, {pack_scratchpad_, engine_}}});
    });
  }

  void multiply(std::int64_t rows, const void* x, const void* packed, void* out) const override {
    if (is_blocked_ || type_ != memory::data_type::f32) return run(rows, x, packed, out);
    // This is the way of processors without AVX-512. There the order of sums depends on the number
    // of rows in ways that are not documented, but is the same for these numbers.
    const auto* from = static_cast<const float*>(x);
    auto* to = static_cast<float*>(out);
    for (const std::int64_t count : {64, 16, 4}) {
      for (; rows >= count; rows -= count, from += count * d_, to += count * n_)
        run(count, from, packed, to);
    }
    if (rows > 0) fail("oneDNN: products of {} rows are not prepared for", rows);
  }

 private:
  void run(std::int64_t rows, const void* x, const void* packed, void* out) const {
    checked([&] {
      const Kernel& kernel = kernel_of(rows);
      Arguments& arguments = arguments_of(kernel, engine_);
      arguments.x.set_data_handle(const_cast<void*>(x));
      arguments.weights.set_data_handle(const_cast<void*>(packed));
      arguments.out.set_data_handle(out);
      kernel.product.execute(stream_, arguments.all);
    });
  }

  // The layout is the one that the library chooses for a product of this many rows.
  static constexpr std::int64_t kLayoutRows = 16;

  dnnl::matmul::primitive_desc description(std::int64_t rows, const memory::desc& weights) const {
    return checked([&] {
      const memory::desc x = rows_of(rows, d_, input_type(type_)),
                         out = rows_of(rows, n_, output_type(type_));
      dnnl::primitive_attr attributes;
      attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
      return dnnl::matmul::primitive_desc(engine_, x, weights, out, attributes);
#else
      return dnnl::matmul::primitive_desc(dnnl::matmul::desc(x, weights, out), attributes, engine_);
#endif
    });
  }

  const Kernel& kernel_of(std::int64_t rows) const {
    const auto index = static_cast<std::size_t>(rows - 1);
    if (const Kernel* kernel = ready_[index].load(std::memory_order_acquire)) return *kernel;
    const std::lock_guard lock(making);
    std::unique_ptr<Kernel>& kernel = kernels_[index];
    if (!kernel) {
      check_room();
      const dnnl::matmul::primitive_desc described = description(rows, packed_);
      kernel = std::make_unique<Kernel>(Kernel{described.src_desc(), described.weights_desc(),
                                               described.dst_desc(), described.scratchpad_desc(),
                                               dnnl::matmul(described), next_number()});
      ready_[index].store(kernel.get(), std::memory_order_release);
    }
    return *kernel;
  }

  const dnnl::engine engine_;
  const dnnl::stream stream_;
  // It is that of the weights.
  const memory::data_type type_;
  const std::int64_t n_, d_;
  memory::desc plain_, packed_, pack_scratchpad_;
  dnnl::reorder pack_;
  // It says whether oneDNN computes the product by its blocked kernels, whose rows do not influence
  // each other.
  bool is_blocked_ = false;
  mutable std::array<std::unique_ptr<Kernel>, kMostProductRows> kernels_;
  mutable std::array<std::atomic<const Kernel*>, kMostProductRows> ready_{};
};

// Returns whether the processor has all instructions of this set. A set is a number with a bit for
// each of its parts.
bool processor_has(dnnl::cpu_isa set) {
  const auto wanted = static_cast<unsigned>(set),
             found = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  return (found & wanted) == wanted;
}

class OneDnn final : public ProductLibrary {
 public:
  std::string name() const override {
    const dnnl_version_t* version = dnnl_version();
    std::string_view instructions = dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa());
    constexpr std::string_view kPrefix = "cpu_isa_";
    if (instructions.starts_with(kPrefix)) instructions.remove_prefix(kPrefix.size());
    return fmt::format("oneDNN {}.{}.{} ({})", version->major, version->minor, version->patch,
                       instructions);
  }

  bool has(DType type) const override {
    switch (type) {
      case DType::kFloat32:
      case DType::kInt8:
        return true;
      case DType::kBFloat16:
        return processor_has(dnnl::cpu_isa::avx512_core_bf16);
      default:
        return false;
    }
  }

  int largest_weight() const override {
    return processor_has(dnnl::cpu_isa::avx512_core_vnni) || processor_has(dnnl::cpu_isa::avx2_vnni)
               ? 127
               : 63;
  }

  // A single row is a product of a matrix with a vector, for which there is other code. In bfloat16
  // there is other code for rows that do not fill a tile of the processor's matrix unit. Sums of
  // int8 are whole numbers and exact, but oneDNN 2.6 has only slow code for fewer than five rows in
  // the layout that it chooses for that unit.
  std::int64_t row_multiple(DType type) const override {
    switch (type) {
      case DType::kBFloat16:
        return 16;
      case DType::kInt8:
        return 8;
      default:
        return processor_has(dnnl::cpu_isa::avx512_core) ? 2 : 4;
    }
  }

  std::shared_ptr<const PanelProduct> panel_product(DType type, std::int64_t n,
                                                    std::int64_t d) override {
    const std::lock_guard lock(making);
    std::shared_ptr<const PanelProduct>& product = products_[{type, n, d}];
    if (!product) {
      check_room();
      product = checked([&] { return std::make_shared<const OneDnnProduct>(engine_, type, n, d); });
    }
    return product;
  }

 private:
  const dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::map<std::tuple<DType, std::int64_t, std::int64_t>, std::shared_ptr<const PanelProduct>>
      products_;
};

}  // namespace
}  // namespace xlate::cpu

extern "C" __attribute__((visibility("default"))) xlate::cpu::ProductLibrary*
xlate_make_product_library() {
  return xlate::cpu::checked([] { return new xlate::cpu::OneDnn; });
}
