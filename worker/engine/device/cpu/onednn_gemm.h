// Matrix products on one thread by oneDNN: finds or builds the kernel of a shape and runs it.
// oneDNN packaged with OpenMP would start threads of its own; every call here is made with OpenMP
// held to one thread, and the caller's pool gives the parallelism, so that results do not depend on
// its size. No header of oneDNN is included here: it is slow to compile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lwq {

// c [m, n] (+)= a [m, k] b [k, n]. Strides in elements. `bf16`: a and b are BF16, c is F32 always.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row_stride = 0;
  int64_t b_row_stride = 0, b_col_stride = 1;  // unused when b is packed
  int64_t c_stride = 0;
  bool bf16 = false;
  bool packed_b = false;  // b is in the layout that Pack made
  enum class Update { kAssign, kAdd, kSubtract } update = Update::kAssign;

  friend bool operator==(const GemmShape&, const GemmShape&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const GemmShape& s) {
    return H::combine(std::move(h), s.m, s.n, s.k, s.a_row_stride, s.b_row_stride, s.b_col_stride,
                      s.c_stride, s.bf16, s.packed_b, s.update);
  }
};

// Thread-safe.
class OnednnGemm {
 public:
  class Kernel;

  OnednnGemm();
  ~OnednnGemm();
  OnednnGemm(const OnednnGemm&) = delete;
  OnednnGemm& operator=(const OnednnGemm&) = delete;

  // Whether BF16 inputs are multiplied by instructions made for them.
  static bool HasNativeBF16();
  // "avx512_core_bf16" and the like: what oneDNN will use here.
  static const char* IsaName();

  // The kernel lives as long as this object. INTERNAL when oneDNN refuses.
  absl::StatusOr<const Kernel*> Find(const GemmShape& shape);
  static absl::Status Run(const Kernel& kernel, const void* a, const void* b, float* c);

  // Layout of b [k, n] that kernels with packed_b read.
  absl::StatusOr<size_t> PackedBytes(int64_t n, int64_t k, bool bf16);
  // Makes it, in the source's type, or from F32 in BF16, rounded to nearest even.
  struct PackSource {
    const void* data;
    bool bf16;
    int64_t n_stride, k_stride;
  };
  absl::Status Pack(const PackSource& b, int64_t n, int64_t k, bool bf16, void* packed);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lwq
