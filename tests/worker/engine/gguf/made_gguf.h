// A small GGUF file with every kind of value and several types of tensors, as bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/engine/gguf/gguf_layout.h"

namespace lwq::testing {

inline GgufMetadata MadeGgufMetadata() {
  GgufMetadata metadata;
  metadata.Set("general.architecture", std::string("llama"));
  metadata.Set("a.u8", uint8_t{200});
  metadata.Set("a.i8", int8_t{-100});
  metadata.Set("a.u16", uint16_t{60000});
  metadata.Set("a.i16", int16_t{-30000});
  metadata.Set("a.u32", uint32_t{4000000000});
  metadata.Set("a.i32", int32_t{-2000000000});
  metadata.Set("a.f32", 0.15625f);
  metadata.Set("a.bool", true);
  metadata.Set("a.u64", uint64_t{1} << 63);
  metadata.Set("a.i64", -(int64_t{1} << 62));
  metadata.Set("a.f64", 1.0 / 3);
  metadata.Set("b.u8", std::vector<uint8_t>{1, 2, 3});
  metadata.Set("b.i32", std::vector<int32_t>{-1, 0, 1});
  metadata.Set("b.f32", std::vector<float>{});
  metadata.Set("b.bool", std::vector<bool>{true, false});
  metadata.Set("b.text", std::vector<std::string>{"", "<s>", "\xe2\x96\x81the"});
  return metadata;
}

inline std::vector<GgufTensorSpec> MadeGgufTensors() {
  return {{"token_embd.weight", GgufType::kQ4_K, {3, 512}},
          {"blk.0.attn_norm.weight", GgufType::kF32, {5}},
          {"blk.0.attn_q.weight", GgufType::kQ8_0, {2, 32}},
          {"blk.0.attn_k.weight", GgufType::kQ5_1, {1, 32}},
          {"blk.0.ffn_gate_exps.weight", GgufType::kF16, {2, 3, 4}}};
}

// The layout's header and for each tensor bytes that count up from its index.
inline std::string MadeGguf(const GgufLayout& layout) {
  std::string file = layout.header;
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    for (int64_t b = 0; b < layout.tensors[i].size_bytes(); ++b) {
      file.push_back(static_cast<char>(static_cast<int64_t>(i) + b));
    }
    file.resize(static_cast<size_t>(PadTo(static_cast<int64_t>(file.size()), layout.alignment)));
  }
  return file;
}

}  // namespace lwq::testing
