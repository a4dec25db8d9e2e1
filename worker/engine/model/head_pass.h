// The output head over many rows of hidden states, a part of the vocabulary at a time: neither the
// head nor a row of logits is ever whole in memory. Each part of the head is loaded and prepared
// once; all rows then pass it, a block of them at a time. Where the head is small, one part is all
// of it. The cut depends on the shapes alone.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/engine/model/decoder.h"

namespace lwq {

// Fills `out` with rows [first, first + out.rows) of a head [vocabulary, hidden].
using HeadRows = std::function<absl::Status(int64_t first, DeviceView<float> out)>;

// The head that `decoder`, which must outlive it, has in its weights.
HeadRows HeadOf(const Decoder& decoder);

// A model at its head.
struct HeadSide {
  const Decoder* decoder = nullptr;  // its final norm, soft cap and type of compute
  // Sides that name the same one share what is prepared of it.
  const HeadRows* head = nullptr;
  ConstMatrixView hidden;  // [T, hidden_size], host memory: what the last layer left
};

// Logits of some rows for some tokens. The views are good until the visitor returns.
struct LogitTile {
  size_t side = 0;
  int64_t first_row = 0;
  int64_t first_token = 0;
  DeviceView<const float> logits;  // [rows, tokens], soft-capped
  DeviceView<const float> first;   // those of side 0 for the same rows and tokens
};

struct HeadPass {
  std::vector<HeadSide> sides;  // of one device and vocabulary, with equally many rows
  // The rows that are wanted, by their place in `hidden`; empty: all.
  absl::Span<const int64_t> rows;
  std::function<absl::Status(double done)> progress;  // may be null; a non-OK answer stops
};

// How many tokens a part of the vocabulary has, and how many rows pass it together.
int64_t TokensPerTile(const DecoderSpec& spec);
int64_t RowsPerTile(const DecoderSpec& spec);

// Visits tokens in their order; for the same tokens rows in theirs; for the same rows the sides in
// theirs.
absl::Status RunHeadPass(const HeadPass& pass,
                         const std::function<absl::Status(const LogitTile&)>& visit);

}  // namespace lwq
