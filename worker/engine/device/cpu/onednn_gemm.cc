#include "worker/engine/device/cpu/onednn_gemm.h"

#include <omp.h>

#include <cstdlib>
#include <exception>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "dnnl.hpp"

namespace lwq {
namespace {

using dnnl::memory;

// Rows of the product for which the packed layout is chosen.
constexpr int64_t kTypicalRows = 256;

// oneDNN fixes a kernel's threads when it is built and asks OpenMP again when it runs.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const int before_;
};

// oneDNN's own scratch space belongs to the thread that built a kernel; this one belongs to the
// thread that runs it.
void* Scratch(size_t bytes) {
  struct Buffer {
    ~Buffer() { std::free(data); }
    void* data = nullptr;
    size_t size = 0;
  };
  static thread_local Buffer buffer;
  if (buffer.size < bytes) {
    std::free(buffer.data);
    buffer.size = (bytes + 4095) / 4096 * 4096;
    buffer.data = std::aligned_alloc(4096, buffer.size);
    if (buffer.data == nullptr) buffer.size = 0;
  }
  return buffer.data;
}

memory::data_type TypeOf(bool bf16) {
  return bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

template <typename F>
absl::Status CatchErrors(const char* what, F&& body) {
  try {
    OneThread one;
    return body();
  } catch (const dnnl::error& e) {
    const std::string text = absl::StrCat("oneDNN, ", what, ": ", e.what());
    if (e.status == dnnl_out_of_memory) return absl::ResourceExhaustedError(text);
    return absl::InternalError(text);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("oneDNN, ", what, ": ", e.what()));
  }
}

}  // namespace

class OnednnGemm::Kernel {
 public:
  Kernel(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& desc)
      : engine(engine),
        desc(desc),
        primitive(desc),
        source(desc.src_desc()),
        weights(desc.weights_desc()),
        destination(desc.dst_desc()),
        scratchpad(desc.scratchpad_desc()) {}

  dnnl::engine engine;
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
  memory::desc source, weights, destination, scratchpad;
};

namespace {

// From a plain layout to a packed one.
struct Packing {
  memory::desc from, to, scratchpad;
  dnnl::reorder primitive;
};

}  // namespace

struct OnednnGemm::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  Mutex mu;
  absl::flat_hash_map<GemmShape, std::unique_ptr<const Kernel>> kernels ABSL_GUARDED_BY(mu);
  absl::flat_hash_map<std::tuple<int64_t, int64_t, bool>, memory::desc> layouts ABSL_GUARDED_BY(mu);

  // By outputs, terms, strides of both in the source, its type and the packed one's.
  using PackingKey = std::tuple<int64_t, int64_t, int64_t, int64_t, bool, bool>;
  absl::flat_hash_map<PackingKey, std::unique_ptr<const Packing>> packings ABSL_GUARDED_BY(mu);

  const Packing& FindPacking(const PackSource& b, int64_t n, int64_t k, bool bf16)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::unique_ptr<const Packing>& packing =
        packings[PackingKey(n, k, b.n_stride, b.k_stride, b.bf16, bf16)];
    if (packing != nullptr) return *packing;
    const memory::desc from({k, n}, TypeOf(b.bf16), {b.k_stride, b.n_stride});
    const memory::desc to = PackedLayout(n, k, bf16);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::reorder::primitive_desc desc(engine, from, engine, to, attributes);
    packing = std::make_unique<const Packing>(
        Packing{from, to, desc.scratchpad_desc(), dnnl::reorder(desc)});
    return *packing;
  }

  dnnl::matmul::primitive_desc Describe(const GemmShape& s, const memory::desc& b) {
    const memory::desc a({s.m, s.k}, TypeOf(s.bf16), {s.a_row_stride, 1});
    const memory::desc c({s.m, s.n}, memory::data_type::f32, {s.c_stride, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (s.update == GemmShape::Update::kSubtract) attributes.set_output_scales(0, {-1.0f});
    if (s.update != GemmShape::Update::kAssign) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    return {dnnl::matmul::desc(a, b, c), attributes, engine};
  }

  memory::desc PackedLayout(int64_t n, int64_t k, bool bf16) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const auto key = std::make_tuple(n, k, bf16);
    if (auto it = layouts.find(key); it != layouts.end()) return it->second;
    GemmShape typical{
        .m = kTypicalRows, .n = n, .k = k, .a_row_stride = k, .c_stride = n, .bf16 = bf16};
    const memory::desc any({k, n}, TypeOf(bf16), memory::format_tag::any);
    return layouts.emplace(key, Describe(typical, any).weights_desc()).first->second;
  }
};

OnednnGemm::OnednnGemm() : state_(std::make_unique<State>()) {}
OnednnGemm::~OnednnGemm() = default;

bool OnednnGemm::HasNativeBF16() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

const char* OnednnGemm::IsaName() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core_amx:
      return "amx";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "avx512_bf16";
    case dnnl::cpu_isa::avx512_core_vnni:
    case dnnl::cpu_isa::avx512_core:
      return "avx512";
    case dnnl::cpu_isa::avx2_vnni:
    case dnnl::cpu_isa::avx2:
      return "avx2";
    case dnnl::cpu_isa::avx:
      return "avx";
    default:
      return "generic";
  }
}

absl::StatusOr<const OnednnGemm::Kernel*> OnednnGemm::Find(const GemmShape& shape) {
  MutexLock lock(&state_->mu);
  std::unique_ptr<const Kernel>& kernel = state_->kernels[shape];
  if (kernel != nullptr) return kernel.get();
  LWQ_RETURN_IF_ERROR(CatchErrors("building a product", [&]() -> absl::Status {
    state_->mu.AssertHeld();
    const memory::desc b = shape.packed_b ? state_->PackedLayout(shape.n, shape.k, shape.bf16)
                                          : memory::desc({shape.k, shape.n}, TypeOf(shape.bf16),
                                                         {shape.b_row_stride, shape.b_col_stride});
    kernel = std::make_unique<const Kernel>(state_->engine, state_->Describe(shape, b));
    return absl::OkStatus();
  }));
  return kernel.get();
}

absl::Status OnednnGemm::Run(const Kernel& kernel, const void* a, const void* b, float* c) {
  return CatchErrors("a product", [&]() -> absl::Status {
    void* scratch = Scratch(kernel.scratchpad.get_size());
    if (scratch == nullptr && kernel.scratchpad.get_size() > 0) {
      return absl::ResourceExhaustedError("no memory for a product's scratch space");
    }
    dnnl::stream stream(kernel.engine);
    const std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, memory(kernel.source, kernel.engine, const_cast<void*>(a))},
        {DNNL_ARG_WEIGHTS, memory(kernel.weights, kernel.engine, const_cast<void*>(b))},
        {DNNL_ARG_DST, memory(kernel.destination, kernel.engine, c)},
        {DNNL_ARG_SCRATCHPAD, memory(kernel.scratchpad, kernel.engine, scratch)}};
    kernel.primitive.execute(stream, arguments);
    stream.wait();
    return absl::OkStatus();
  });
}

absl::StatusOr<size_t> OnednnGemm::PackedBytes(int64_t n, int64_t k, bool bf16) {
  size_t bytes = 0;
  MutexLock lock(&state_->mu);
  LWQ_RETURN_IF_ERROR(CatchErrors("laying out a weight", [&]() -> absl::Status {
    state_->mu.AssertHeld();
    bytes = state_->PackedLayout(n, k, bf16).get_size();
    return absl::OkStatus();
  }));
  return bytes;
}

absl::Status OnednnGemm::Pack(const PackSource& b, int64_t n, int64_t k, bool bf16, void* packed) {
  return CatchErrors("packing a weight", [&]() -> absl::Status {
    const Packing* packing = nullptr;
    {
      MutexLock lock(&state_->mu);
      packing = &state_->FindPacking(b, n, k, bf16);
    }
    void* scratch = Scratch(packing->scratchpad.get_size());
    if (scratch == nullptr && packing->scratchpad.get_size() > 0) {
      return absl::ResourceExhaustedError("no memory for packing's scratch space");
    }
    dnnl::stream stream(state_->engine);
    packing->primitive.execute(
        stream, {{DNNL_ARG_FROM, memory(packing->from, state_->engine, const_cast<void*>(b.data))},
                 {DNNL_ARG_TO, memory(packing->to, state_->engine, packed)},
                 {DNNL_ARG_SCRATCHPAD, memory(packing->scratchpad, state_->engine, scratch)}});
    stream.wait();
    return absl::OkStatus();
  });
}

}  // namespace lwq
