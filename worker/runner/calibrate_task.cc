// One pass of the source model over the calibration tokens, collecting what quantizers and scorers
// declared they need: evidence of each layer, and hidden states at layer boundaries.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/evidence/collector.h"
#include "worker/engine/tensor/mapped_matrix.h"
#include "worker/runner/evidence_blobs.h"
#include "worker/runner/task_input.h"
#include "worker/runner/task_memory.h"

namespace lwq {
namespace {

// Shows the collectors what the output head reads.
absl::Status CollectHead(const TaskContext& context, const Decoder& decoder,
                         const CollectorContext& collector_context, ConstMatrixView hidden,
                         Collection& collection, v1::TaskOutput& output) {
  LWQ_ASSIGN_OR_RETURN(const auto norm, decoder.LoadHeadNorm());
  Device* device = context.device;
  LWQ_RETURN_IF_ERROR(collection.Begin(collector_context, /*inputs_only=*/true));
  const int64_t rows = std::min(decoder.chunk_tokens(), hidden.rows);
  LWQ_ASSIGN_OR_RETURN(auto x, device->NewMatrix(rows, hidden.cols));
  for (int64_t begin = 0; begin < hidden.rows; begin += rows) {
    const DeviceView<float> chunk = x->Rows(0, std::min(rows, hidden.rows - begin));
    LWQ_RETURN_IF_ERROR(device->Upload(hidden.Rows(begin, chunk.rows), chunk));
    LWQ_RETURN_IF_ERROR(device->RmsNorm(chunk, norm->span(),
                                        static_cast<float>(decoder.spec().norm_epsilon), chunk));
    LWQ_RETURN_IF_ERROR(collection.ObserveInput(0, chunk));
  }
  BlobEvidenceSink sink(&context, Place::Head(), &output);
  return collection.Finish(sink);
}

// The calibration tokens and their hidden states, where they stand.
struct CalibrationState {
  // Of the rows from `first` on, which layers run over together.
  struct Part {
    int64_t first = 0;
    PreparedBatch batch;
    std::unique_ptr<StateStore> states;
    bool watched = false;  // by collectors of inputs
  };

  std::shared_ptr<const TokenBatch> batch;
  TokenBatch fitted, rest;  // the first of them are for statistics; see RunCalibrate
  MatrixView hidden;        // of all, [tokens, hidden_size]
  std::vector<Part> parts;

  MatrixView fitted_rows() const { return hidden.Rows(0, fitted.num_tokens()); }
  MatrixView rest_rows() const { return hidden.Rows(fitted.num_tokens(), rest.num_tokens()); }
  // `hidden` has what layers made of its rows from `first` on.
  absl::Status Flush(int64_t first) {
    for (Part& part : parts) {
      if (part.first + part.batch.num_tokens <= first) continue;
      LWQ_RETURN_IF_ERROR(part.states->Flush());
    }
    return absl::OkStatus();
  }
};

absl::Status AddPart(const Decoder& decoder, const TokenBatch& batch, MatrixView rows,
                     int64_t first, bool watched, CalibrationState& state) {
  if (rows.rows == 0) return absl::OkStatus();
  int64_t open_rows = 0;
  for (const CalibrationState::Part& open : state.parts) open_rows += open.batch.num_tokens;
  CalibrationState::Part& part = state.parts.emplace_back();
  part.first = first;
  part.watched = watched;
  LWQ_ASSIGN_OR_RETURN(part.batch, decoder.PrepareBatch(batch));
  LWQ_ASSIGN_OR_RETURN(part.states, decoder.OpenStates(rows, open_rows * rows.cols *
                                                              static_cast<int64_t>(sizeof(float))));
  return absl::OkStatus();
}

// Once the hidden states are those that the first layer reads. What statistics are made of goes by
// itself where inputs are watched.
absl::Status OpenParts(const Decoder& decoder, bool watches_inputs, CalibrationState& state) {
  if (!watches_inputs) {
    return AddPart(decoder, *state.batch, state.hidden, 0, /*watched=*/false, state);
  }
  LWQ_RETURN_IF_ERROR(AddPart(decoder, state.rest, state.rest_rows(), state.fitted.num_tokens(),
                              /*watched=*/false, state));
  return AddPart(decoder, state.fitted, state.fitted_rows(), 0, /*watched=*/true, state);
}

// Runs one layer over all tokens while the collectors watch.
absl::Status RunWatched(const Decoder& decoder, int layer, const CalibrationState& state,
                        Collection& collection, EvidenceSink& sink) {
  std::vector<double> cosines;
  if (collection.watches_directions()) {
    cosines.resize(static_cast<size_t>(state.batch->num_tokens()));
  }
  const absl::Span<double> all = absl::MakeSpan(cosines);
  LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder.LoadLayer(layer));
  const LinearInputObserver watch = {
      [&](size_t input, DeviceView<const float> x) { return collection.ObserveInput(input, x); },
      [&](size_t input) { return collection.FinishInput(input, sink); }};
  for (const CalibrationState::Part& part : state.parts) {
    const absl::Span<double> of_part =
        all.empty() ? all
                    : all.subspan(static_cast<size_t>(part.first),
                                  static_cast<size_t>(part.batch.num_tokens));
    LWQ_RETURN_IF_ERROR(decoder.RunLayer(weights, part.batch, *part.states,
                                         part.watched ? watch : LinearInputObserver(), of_part));
  }
  if (cosines.empty()) return absl::OkStatus();
  // What is held out ranks no layer either: plans that follow such an order are judged on it.
  return collection.ObserveDirections(state.fitted,
                                      all.first(static_cast<size_t>(state.fitted.num_tokens())));
}

absl::StatusOr<std::unique_ptr<Decoder>> OpenSource(const TaskContext& context,
                                                    const v1::CalibrateTask& task,
                                                    const OpenedModel& model, ComputeType compute) {
  LWQ_ASSIGN_OR_RETURN(auto decoder, OpenDecoder(context, model.spec, model.weights.get(), compute,
                                                 task.chunk_tokens()));
  MemoryQuestion question;
  question.bf16 = compute == ComputeType::kBF16;
  question.runs_source = question.moments = true;
  UseSpareMemory(context, "calibrate", model.inventory, question, *decoder);
  return decoder;
}

// Fills the hidden states that `first_layer` reads: from the embeddings, or as the segment before
// left them.
absl::Status Start(const TaskContext& context, int first_layer, Decoder& decoder,
                   const CalibrationState& state) {
  if (first_layer == 0) return decoder.Embed(state.batch->tokens, state.hidden);
  LWQ_ASSIGN_OR_RETURN(std::string path,
                       FetchInputBlob(context, "calibrate", StateBlobName(first_layer)));
  return ReadRowsBlob(path, state.batch->num_tokens(), 0, state.hidden);
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunCalibrate(const TaskContext& context,
                                            const v1::CalibrateTask& task) {
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.compute()));
  CalibrationState state;
  LWQ_ASSIGN_OR_RETURN(state.batch,
                       LoadCalibration(context, task.model(), model.spec, task.calibration()));
  const std::vector<std::string> evidence(task.evidence().begin(), task.evidence().end());
  LWQ_ASSIGN_OR_RETURN(Collection collection, Collection::Find(evidence));
  LWQ_ASSIGN_OR_RETURN(const auto decoder, OpenSource(context, task, model, compute));
  const int64_t num_tokens = state.batch->num_tokens();
  const HeldOut held_out(*state.batch, task.calibration().num_tokens(), task.held_out());
  state.fitted = held_out.fitted();
  state.rest = held_out.rest();
  const int64_t held_out_rows = held_out.all().num_tokens();
  const HeldOutPart scored = held_out.Part(HeldOutUse::kScore);
  const std::string scratch = context.blobs->ScratchDirectory();
  LWQ_ASSIGN_OR_RETURN(MappedMatrix hidden,
                       MappedMatrix::Create(scratch, num_tokens, model.spec.hidden_size));
  state.hidden = hidden.view();
  LWQ_RETURN_IF_ERROR(Start(context, task.first_layer(), *decoder, state));
  LWQ_RETURN_IF_ERROR(OpenParts(*decoder, collection.watches_inputs(), state));

  v1::TaskOutput output;
  output.mutable_calibrate()->set_num_tokens(state.fitted.num_tokens());
  const MatrixView held_out_hidden = state.hidden.Rows(num_tokens - held_out_rows, held_out_rows);
  const auto keep = [&](int layer, int64_t first, int64_t count) -> absl::Status {
    LWQ_RETURN_IF_ERROR(state.Flush(num_tokens - held_out_rows));
    return AddRowsBlob(context, HiddenBlobName(layer), held_out_hidden.Rows(first, count), output);
  };
  const int num_layers = task.end_layer() - task.first_layer();
  for (int layer = task.first_layer(); layer < task.end_layer(); ++layer) {
    LWQ_RETURN_IF_ERROR(
        context.progress(static_cast<double>(layer - task.first_layer()) / num_layers,
                         absl::StrCat("layer ", layer + 1, "/", model.spec.num_layers())));
    if (task.hidden_states() && scored.batch.num_tokens() > 0) {
      LWQ_RETURN_IF_ERROR(keep(layer, scored.first_row, scored.batch.num_tokens()));
    }
    const LayerSpec& spec = model.spec.layers[static_cast<size_t>(layer)];
    LWQ_RETURN_IF_ERROR(collection.Begin({context.device, compute, spec.inputs}));
    BlobEvidenceSink sink(&context, Place::Layer(layer), &output);
    LWQ_RETURN_IF_ERROR(RunWatched(*decoder, layer, state, collection, sink));
    LWQ_RETURN_IF_ERROR(collection.Finish(sink));
  }

  LWQ_RETURN_IF_ERROR(state.Flush(0));
  if (task.end_layer() < model.spec.num_layers()) {
    LWQ_RETURN_IF_ERROR(
        AddRowsBlob(context, StateBlobName(task.end_layer()), hidden.view(), output));
    return output;
  }
  if (task.hidden_states()) LWQ_RETURN_IF_ERROR(keep(task.end_layer(), 0, held_out_rows));
  if (task.head_evidence()) {
    LWQ_RETURN_IF_ERROR(CollectHead(context, *decoder,
                                    {context.device, compute, model.spec.head.layer.inputs},
                                    state.fitted_rows(), collection, output));
  }
  return output;
}

}  // namespace lwq
