// One pass of the source model over the calibration tokens, collecting what quantizers and scorers
// declared they need: second moments of each linear's input, hidden states at layer boundaries, and
// the cosine between each layer's input and output.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"
#include "worker/engine/tensor/mapped_matrix.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

// Lower triangle by rows, F32 little-endian: what GramBlobName names.
absl::Status AddGramBlob(const TaskContext& context, const std::string& name, DeviceMatrix& gram,
                         v1::TaskOutput& output) {
  const std::string path = JoinPath(context.blobs->ScratchDirectory(), name);
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(path));
  const int64_t size = gram.view().rows;
  constexpr int64_t kRows = 128;
  Matrix rows(std::min(kRows, size), size);
  for (int64_t begin = 0; begin < size; begin += kRows) {
    const int64_t count = std::min(kRows, size - begin);
    MatrixView host = rows.view().Rows(0, count);
    LWQ_RETURN_IF_ERROR(context.device->Download(gram.Rows(begin, count), host));
    for (int64_t r = 0; r < count; ++r) {
      LWQ_RETURN_IF_ERROR(
          writer->Append(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(host.Row(r)),
                                             static_cast<size_t>(begin + r + 1) * sizeof(float))));
    }
  }
  LWQ_RETURN_IF_ERROR(writer->Close());
  return AddBlob(context, name, path, output);
}

// Accumulates X^T X of the inputs of one layer.
class LayerGrams {
 public:
  static absl::StatusOr<LayerGrams> Create(Device* device, const LayerSpec& layer,
                                           ComputeType compute) {
    LayerGrams grams;
    grams.device_ = device;
    grams.compute_ = compute;
    grams.layer_ = &layer;
    for (const InputSpec& input : layer.inputs) {
      LWQ_ASSIGN_OR_RETURN(auto gram, device->NewMatrix(input.features, input.features));
      LWQ_RETURN_IF_ERROR(device->FillZero(gram->view()));
      grams.grams_.push_back(std::move(gram));
    }
    return grams;
  }

  LinearInputObserver Observer() {
    return [this](size_t input, DeviceView<const float> x) {
      return device_->AccumulateGram(x, compute_, grams_[input]->view());
    };
  }

  absl::Status AddBlobs(const TaskContext& context, Place place, v1::TaskOutput& output) {
    for (size_t i = 0; i < grams_.size(); ++i) {
      LWQ_RETURN_IF_ERROR(
          AddGramBlob(context, GramBlobName(place, layer_->inputs[i]), *grams_[i], output));
      grams_[i].reset();
    }
    return absl::OkStatus();
  }

 private:
  Device* device_ = nullptr;
  ComputeType compute_ = ComputeType::kF32;
  const LayerSpec* layer_ = nullptr;
  std::vector<std::unique_ptr<DeviceMatrix>> grams_;  // by input
};

// Second moments of what the output head reads, for models whose head is quantized.
absl::Status AddHeadGram(const TaskContext& context, const Decoder& decoder, ComputeType compute,
                         ConstMatrixView hidden, v1::TaskOutput& output) {
  LWQ_ASSIGN_OR_RETURN(HeadWeights head, decoder.LoadHead());
  Device* device = context.device;
  LWQ_ASSIGN_OR_RETURN(auto gram, device->NewMatrix(hidden.cols, hidden.cols));
  LWQ_RETURN_IF_ERROR(device->FillZero(gram->view()));
  const int64_t rows = std::min(Decoder::kChunkTokens, hidden.rows);
  LWQ_ASSIGN_OR_RETURN(auto x, device->NewMatrix(rows, hidden.cols));
  for (int64_t begin = 0; begin < hidden.rows; begin += rows) {
    const DeviceView<float> chunk = x->Rows(0, std::min(rows, hidden.rows - begin));
    LWQ_RETURN_IF_ERROR(device->Upload(hidden.Rows(begin, chunk.rows), chunk));
    LWQ_RETURN_IF_ERROR(device->RmsNorm(chunk, head.final_norm->span(),
                                        static_cast<float>(decoder.spec().norm_epsilon), chunk));
    LWQ_RETURN_IF_ERROR(device->AccumulateGram(chunk, compute, gram->view()));
  }
  return AddGramBlob(context, GramBlobName(Place::Head(), decoder.spec().head.input), *gram,
                     output);
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunCalibrate(const TaskContext& context,
                                            const v1::CalibrateTask& task) {
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.compute()));
  LWQ_ASSIGN_OR_RETURN(TokenBatch batch, LoadCalibration(context, task.model().directory(),
                                                         model.spec, task.calibration()));
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(model.spec, model.weights.get(), context.device, compute));
  const int64_t num_tokens = batch.num_tokens();
  const HeldOut held_out(batch, task.calibration().num_tokens(), task.held_out());
  const TokenBatch fitted = held_out.fitted();
  const int64_t held_out_rows = held_out.all().num_tokens();
  const TokenBatch rest = held_out.rest();
  const HeldOutPart scored = held_out.Part(HeldOutUse::kScore);
  const std::string scratch = context.blobs->ScratchDirectory();
  LWQ_ASSIGN_OR_RETURN(MappedMatrix hidden,
                       MappedMatrix::Create(scratch, num_tokens, model.spec.hidden_size));
  if (task.first_layer() == 0) {
    LWQ_RETURN_IF_ERROR(decoder->Embed(batch.tokens, hidden.view()));
  } else {
    LWQ_ASSIGN_OR_RETURN(std::string path,
                         FetchInputBlob(context, "calibrate", StateBlobName(task.first_layer())));
    LWQ_RETURN_IF_ERROR(ReadRowsBlob(path, num_tokens, 0, hidden.view()));
  }

  v1::TaskOutput output;
  v1::CalibrateResult& result = *output.mutable_calibrate();
  result.set_num_tokens(fitted.num_tokens());
  const MatrixView fitted_rows = hidden.view().Rows(0, fitted.num_tokens());
  const MatrixView rest_rows = hidden.view().Rows(fitted.num_tokens(), rest.num_tokens());
  const MatrixView held_out_hidden = hidden.view().Rows(num_tokens - held_out_rows, held_out_rows);
  const auto keep = [&](int layer, int64_t first, int64_t count) {
    return AddRowsBlob(context, HiddenBlobName(layer), held_out_hidden.Rows(first, count), output);
  };
  std::vector<double> cosines(static_cast<size_t>(num_tokens));
  const int num_layers = task.end_layer() - task.first_layer();
  for (int layer = task.first_layer(); layer < task.end_layer(); ++layer) {
    LWQ_RETURN_IF_ERROR(
        context.progress(static_cast<double>(layer - task.first_layer()) / num_layers,
                         absl::StrCat("layer ", layer + 1, "/", model.spec.num_layers())));
    if (task.hidden_states() && scored.batch.num_tokens() > 0) {
      LWQ_RETURN_IF_ERROR(keep(layer, scored.first_row, scored.batch.num_tokens()));
    }
    LWQ_ASSIGN_OR_RETURN(LayerWeights weights, decoder->LoadLayer(layer));
    if (task.statistics()) {
      LWQ_ASSIGN_OR_RETURN(
          LayerGrams grams,
          LayerGrams::Create(context.device, model.spec.layers[static_cast<size_t>(layer)],
                             compute));
      const size_t num_fitted = static_cast<size_t>(fitted.num_tokens());
      if (rest_rows.rows > 0) {
        LWQ_RETURN_IF_ERROR(decoder->RunLayer(weights, rest, rest_rows, nullptr,
                                              absl::MakeSpan(cosines).subspan(num_fitted)));
      }
      LWQ_RETURN_IF_ERROR(decoder->RunLayer(weights, fitted, fitted_rows, grams.Observer(),
                                            absl::MakeSpan(cosines).first(num_fitted)));
      weights = LayerWeights{};
      LWQ_RETURN_IF_ERROR(grams.AddBlobs(context, Place::Layer(layer), output));
    } else {
      LWQ_RETURN_IF_ERROR(
          decoder->RunLayer(weights, batch, hidden.view(), nullptr, absl::MakeSpan(cosines)));
    }
    result.add_layer_cosine(std::accumulate(cosines.begin(), cosines.end(), 0.0) /
                            static_cast<double>(num_tokens));
  }

  if (task.end_layer() < model.spec.num_layers()) {
    LWQ_RETURN_IF_ERROR(
        AddRowsBlob(context, StateBlobName(task.end_layer()), hidden.view(), output));
    return output;
  }
  if (task.hidden_states()) LWQ_RETURN_IF_ERROR(keep(task.end_layer(), 0, held_out_rows));
  if (task.head_statistics()) {
    LWQ_RETURN_IF_ERROR(AddHeadGram(context, *decoder, compute, fitted_rows, output));
  }
  return output;
}

}  // namespace lwq
