// Matrices the other way. Private to device/cpu.
#pragma once

#include <cstdint>

namespace lwq {

// to [cols, rows] = from^T for from [rows, cols]; both with strides of their own, not overlapping.
// On one thread, with the instruction set chosen at run time.
void Transpose(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float* to,
               int64_t to_stride);
void Transpose(const uint16_t* from, int64_t from_stride, int64_t rows, int64_t cols, uint16_t* to,
               int64_t to_stride);

}  // namespace lwq
