// Element types of stored tensors, by their safetensors names. Header-only: the planner library,
// which the server links, uses it too.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace lwq {

enum class DType {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};

struct DTypeInfo {
  DType dtype;
  absl::string_view name;  // as safetensors spells it
  int size_bytes;
  int order;  // rank in the reference writer's alignment order (docs/formats/safetensors.md)
};

// In the reference implementation's ascending order.
inline constexpr DTypeInfo kDTypes[] = {
    {DType::kBool, "BOOL", 1, 0},      {DType::kU8, "U8", 1, 1},
    {DType::kI8, "I8", 1, 2},          {DType::kF8E5M2, "F8_E5M2", 1, 3},
    {DType::kF8E4M3, "F8_E4M3", 1, 4}, {DType::kI16, "I16", 2, 5},
    {DType::kU16, "U16", 2, 6},        {DType::kF16, "F16", 2, 7},
    {DType::kBF16, "BF16", 2, 8},      {DType::kI32, "I32", 4, 9},
    {DType::kU32, "U32", 4, 10},       {DType::kF32, "F32", 4, 11},
    {DType::kF64, "F64", 8, 12},       {DType::kI64, "I64", 8, 13},
    {DType::kU64, "U64", 8, 14}};

inline constexpr const DTypeInfo& InfoOf(DType dtype) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.dtype == dtype) return info;
  }
  return kDTypes[0];
}
inline constexpr int SizeOf(DType dtype) { return InfoOf(dtype).size_bytes; }
inline constexpr absl::string_view NameOf(DType dtype) { return InfoOf(dtype).name; }
inline std::optional<DType> DTypeFromName(absl::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) return info.dtype;
  }
  return std::nullopt;
}
// F16, BF16 or F32: what a model's weights may be.
inline constexpr bool IsWeightFloat(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32;
}

}  // namespace lwq
