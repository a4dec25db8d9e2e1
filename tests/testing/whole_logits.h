// All logits of a model at once, which only a small one's fit in memory.
#pragma once

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "worker/engine/model/head_pass.h"

namespace lwq::testing {

// [rows of hidden, vocabulary], for what the last layer left, in host memory.
inline absl::StatusOr<Matrix> WholeLogits(const Decoder& decoder, ConstMatrixView hidden) {
  Matrix logits(hidden.rows, decoder.spec().vocab_size);
  const HeadRows head = HeadOf(decoder);
  HeadPass pass;
  pass.sides = {{&decoder, &head, hidden}};
  LWQ_RETURN_IF_ERROR(RunHeadPass(pass, [&](const LogitTile& tile) {
    const MatrixView rows = logits.view().Rows(tile.first_row, tile.logits.rows);
    return decoder.device()->Download(tile.logits, rows.Cols(tile.first_token, tile.logits.cols));
  }));
  return logits;
}

}  // namespace lwq::testing
