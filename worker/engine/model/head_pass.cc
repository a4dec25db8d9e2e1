#include "worker/engine/model/head_pass.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// 16 MiB each as F32: of the head, and of logits.
constexpr int64_t kTileWeights = int64_t{1} << 22;
constexpr int64_t kTileLogits = int64_t{1} << 22;
// Products of fewer outputs or rows are slow.
constexpr int64_t kMinTokens = 256;
constexpr int64_t kMaxTokens = 8192;
constexpr int64_t kMaxRows = 1024;

class Pass {
 public:
  Pass(const HeadPass& pass, const std::function<absl::Status(const LogitTile&)>& visit)
      : pass_(pass),
        visit_(visit),
        spec_(pass.sides[0].decoder->spec()),
        device_(pass.sides[0].decoder->device()),
        num_rows_(pass.rows.empty() ? pass.sides[0].hidden.rows
                                    : static_cast<int64_t>(pass.rows.size())),
        block_(std::min(RowsPerTile(spec_), num_rows_)) {}

  absl::Status Run() {
    LWQ_RETURN_IF_ERROR(Check());
    if (num_rows_ == 0) return absl::OkStatus();
    LWQ_RETURN_IF_ERROR(Reserve());
    const int64_t tokens = TokensPerTile(spec_);
    for (int64_t first = 0; first < spec_.vocab_size; first += tokens) {
      if (pass_.progress) {
        LWQ_RETURN_IF_ERROR(
            pass_.progress(static_cast<double>(first) / static_cast<double>(spec_.vocab_size)));
      }
      LWQ_RETURN_IF_ERROR(RunTokens(first, std::min(tokens, spec_.vocab_size - first)));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Check() const {
    for (const HeadSide& side : pass_.sides) {
      const DecoderSpec& spec = side.decoder->spec();
      if (spec.vocab_size != spec_.vocab_size) {
        return Failure(reasons::kVocabularyMismatch,
                       absl::StrCat("models of ", spec_.vocab_size, " and ", spec.vocab_size,
                                    " tokens at one head"));
      }
      if (side.decoder->device() != device_ || side.hidden.cols != spec.hidden_size ||
          side.hidden.rows != pass_.sides[0].hidden.rows) {
        return absl::InvalidArgumentError(
            absl::StrCat("hidden states [", side.hidden.rows, ", ", side.hidden.cols,
                         "] at the head, expected [", pass_.sides[0].hidden.rows, ", ",
                         spec.hidden_size, "] and one device"));
      }
    }
    for (const int64_t row : pass_.rows) {
      if (row < 0 || row >= pass_.sides[0].hidden.rows) {
        return absl::InvalidArgumentError(absl::StrCat(
            "row ", row, " of ", pass_.sides[0].hidden.rows, " is wanted at the head"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Reserve() {
    const int64_t tokens = TokensPerTile(spec_);
    int64_t widest = 0;
    for (const HeadSide& side : pass_.sides) {
      widest = std::max(widest, side.hidden.cols);
      LWQ_ASSIGN_OR_RETURN(norms_.emplace_back(), side.decoder->LoadHeadNorm());
    }
    LWQ_ASSIGN_OR_RETURN(normed_, device_->NewMatrix(block_, widest));
    LWQ_ASSIGN_OR_RETURN(first_, device_->NewMatrix(block_, tokens));
    if (pass_.sides.size() > 1) {
      LWQ_ASSIGN_OR_RETURN(other_, device_->NewMatrix(block_, tokens));
    }
    if (!pass_.rows.empty()) gathered_ = Matrix(block_, widest);
    return absl::OkStatus();
  }

  absl::Status RunTokens(int64_t first, int64_t count) {
    std::map<const HeadRows*, std::shared_ptr<const PreparedWeight>> prepared;
    for (const HeadSide& side : pass_.sides) {
      std::shared_ptr<const PreparedWeight>& weight = prepared[side.head];
      if (weight != nullptr) continue;
      LWQ_ASSIGN_OR_ANNOTATE(
          weight,
          side.decoder->Prepare(count, side.hidden.cols,
                                [&](DeviceView<float> out) { return (*side.head)(first, out); }),
          "the head");
    }
    for (int64_t row = 0; row < num_rows_; row += block_) {
      const int64_t rows = std::min(block_, num_rows_ - row);
      const DeviceView<float> ours = first_->Carve(0, rows, count);
      for (size_t s = 0; s < pass_.sides.size(); ++s) {
        const DeviceView<float> logits = s == 0 ? ours : other_->Carve(0, rows, count);
        LWQ_RETURN_IF_ERROR(Logits(s, row, *prepared[pass_.sides[s].head], logits));
        LWQ_RETURN_IF_ERROR(visit_({s, row, first, logits, ours}));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Logits(size_t s, int64_t row, const PreparedWeight& head, DeviceView<float> logits) {
    const HeadSide& side = pass_.sides[s];
    const DecoderSpec& spec = side.decoder->spec();
    const DeviceView<float> normed = normed_->Carve(0, logits.rows, side.hidden.cols);
    LWQ_RETURN_IF_ERROR(device_->Upload(HiddenRows(side.hidden, row, logits.rows), normed));
    LWQ_RETURN_IF_ERROR(
        device_->RmsNorm(normed, norms_[s]->span(), static_cast<float>(spec.norm_epsilon), normed));
    LWQ_RETURN_IF_ERROR(Annotate(device_->Linear(normed, head, logits), "the head"));
    if (spec.logit_softcap == 0) return absl::OkStatus();
    return device_->SoftCap(static_cast<float>(spec.logit_softcap), logits);
  }

  ConstMatrixView HiddenRows(ConstMatrixView hidden, int64_t row, int64_t count) {
    if (pass_.rows.empty()) return hidden.Rows(row, count);
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(gathered_.Row(r), hidden.Row(pass_.rows[static_cast<size_t>(row + r)]),
                  static_cast<size_t>(hidden.cols) * sizeof(float));
    }
    return {gathered_.data(), count, hidden.cols, gathered_.view().stride};
  }

  const HeadPass& pass_;
  const std::function<absl::Status(const LogitTile&)>& visit_;
  const DecoderSpec& spec_;
  Device* const device_;
  const int64_t num_rows_;
  const int64_t block_;                               // rows at a time
  std::vector<std::shared_ptr<DeviceMatrix>> norms_;  // by side
  std::unique_ptr<DeviceMatrix> normed_;              // [block, hidden]
  std::unique_ptr<DeviceMatrix> first_, other_;       // [block, tokens]: logits
  Matrix gathered_;                                   // [block, hidden]
};

}  // namespace

HeadRows HeadOf(const Decoder& decoder) {
  return
      [&decoder](int64_t first, DeviceView<float> out) { return decoder.LoadHeadRows(first, out); };
}

int64_t TokensPerTile(const DecoderSpec& spec) {
  const int64_t fit = std::clamp(kTileWeights / spec.hidden_size, kMinTokens, kMaxTokens);
  return std::min(fit, spec.vocab_size);
}

int64_t RowsPerTile(const DecoderSpec& spec) {
  return std::min(kMaxRows, std::max<int64_t>(1, kTileLogits / TokensPerTile(spec)));
}

absl::Status RunHeadPass(const HeadPass& pass,
                         const std::function<absl::Status(const LogitTile&)>& visit) {
  return Pass(pass, visit).Run();
}

}  // namespace lwq
