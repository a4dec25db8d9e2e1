#include "worker/runner/evidence_blobs.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hashing_writer.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

absl::Span<const uint8_t> BytesOf(const float* values, int64_t count) {
  return {reinterpret_cast<const uint8_t*>(values), static_cast<size_t>(count) * sizeof(float)};
}

class BlobEvidence : public LayerEvidence {
 public:
  BlobEvidence(const TaskContext* context, Place place) : context_(*context), place_(place) {}

  int64_t num_tokens() const override {
    for (const v1::TaskInput& input : context_.lease->inputs()) {
      if (input.role() == "calibrate") return input.output().calibrate().num_tokens();
    }
    return 0;
  }

  absl::StatusOr<double> Value(absl::string_view name) const override {
    for (const v1::TaskInput& input : context_.lease->inputs()) {
      if (input.role() != "calibrate" || !place_.in_layer()) continue;
      for (const v1::LayerValues& layer : input.output().calibrate().layers()) {
        const auto found = layer.values().find(std::string(name));
        if (layer.layer() == place_.layer && found != layer.values().end()) return found->second;
      }
    }
    return Failure(reasons::kEvidenceMissing,
                   absl::StrCat("task ", context_.lease->task(), " was leased without the ", name,
                                " of layer ", place_.layer));
  }

  absl::StatusOr<Matrix> Table(absl::string_view name, const InputSpec& input,
                               int64_t num_rows) const override {
    LWQ_ASSIGN_OR_RETURN(const auto file, Open(name, input));
    const size_t row_bytes = static_cast<size_t>(input.features) * sizeof(float);
    const size_t size = file->bytes().size();
    if (size != static_cast<size_t>(num_rows) * row_bytes) return WrongSize(name, input, size);
    Matrix table(num_rows, input.features);
    for (int64_t r = 0; r < table.rows(); ++r) {
      std::memcpy(table.Row(r), file->bytes().data() + static_cast<size_t>(r) * row_bytes,
                  row_bytes);
    }
    return table;
  }

  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Triangle(absl::string_view name,
                                                         const InputSpec& input) const override {
    LWQ_ASSIGN_OR_RETURN(const auto file, Open(name, input));
    const int64_t n = input.features;
    const size_t size = file->bytes().size();
    if (static_cast<int64_t>(size) != n * (n + 1) / 2 * 4) return WrongSize(name, input, size);
    LWQ_ASSIGN_OR_RETURN(auto triangle, context_.device->NewMatrix(n, n));
    LWQ_RETURN_IF_ERROR(context_.device->FillZero(triangle->view()));
    Matrix row(1, n);
    const uint8_t* source = file->bytes().data();
    for (int64_t r = 0; r < n; ++r) {
      std::memcpy(row.data(), source, static_cast<size_t>(r + 1) * sizeof(float));
      source += (r + 1) * sizeof(float);
      LWQ_RETURN_IF_ERROR(
          context_.device->Upload(row.view().Cols(0, r + 1), triangle->Rows(r, 1).Cols(0, r + 1)));
    }
    return triangle;
  }

 private:
  absl::StatusOr<std::unique_ptr<MappedFile>> Open(absl::string_view name,
                                                   const InputSpec& input) const {
    LWQ_ASSIGN_OR_RETURN(
        const std::string path,
        FetchInputBlob(context_, "calibrate", EvidenceBlobName(name, place_, input)));
    return MappedFile::Open(path);
  }

  absl::Status WrongSize(absl::string_view name, const InputSpec& input, size_t size) const {
    return Failure(reasons::kBlobCorrupt,
                   absl::StrCat(EvidenceBlobName(name, place_, input), " has ", size,
                                " bytes, which does not fit ", input.features, " features"));
  }

  const TaskContext& context_;
  const Place place_;
};

}  // namespace

std::string EvidenceBlobName(absl::string_view collector, Place place, const InputSpec& input) {
  if (!place.in_layer()) return absl::StrCat(collector, ".", input.name);
  return absl::StrCat(collector, ".", place.layer, ".", input.name);
}

BlobEvidenceSink::BlobEvidenceSink(const TaskContext* context, Place place, v1::TaskOutput* output)
    : context_(*context), place_(place), output_(*output) {}

absl::Status BlobEvidenceSink::AddValue(absl::string_view name, double value) {
  if (!place_.in_layer()) return absl::InternalError("only layers have numbers");
  v1::CalibrateResult& result = *output_.mutable_calibrate();
  const int last = result.layers_size() - 1;
  v1::LayerValues& layer = last >= 0 && result.layers(last).layer() == place_.layer
                               ? *result.mutable_layers(last)
                               : *result.add_layers();
  layer.set_layer(place_.layer);
  (*layer.mutable_values())[std::string(name)] = value;
  return absl::OkStatus();
}

absl::Status BlobEvidenceSink::AddTable(absl::string_view name, const InputSpec& input,
                                        ConstMatrixView table) {
  return AddRowsBlob(context_, EvidenceBlobName(name, place_, input), table, output_);
}

absl::Status BlobEvidenceSink::AddTriangle(absl::string_view name, const InputSpec& input,
                                           DeviceView<const float> triangle) {
  const std::string blob = EvidenceBlobName(name, place_, input);
  const std::string path = JoinPath(context_.blobs->ScratchDirectory(), blob);
  LWQ_ASSIGN_OR_RETURN(const auto writer, HashingWriter::Create(path));
  constexpr int64_t kRows = 128;
  Matrix rows(std::min(kRows, triangle.rows), triangle.cols);
  for (int64_t begin = 0; begin < triangle.rows; begin += kRows) {
    const int64_t count = std::min(kRows, triangle.rows - begin);
    const MatrixView host = rows.view().Rows(0, count);
    LWQ_RETURN_IF_ERROR(context_.device->Download(triangle.Rows(begin, count), host));
    for (int64_t r = 0; r < count; ++r) {
      LWQ_RETURN_IF_ERROR(writer->Append(BytesOf(host.Row(r), begin + r + 1)));
    }
  }
  LWQ_ASSIGN_OR_RETURN(const std::string digest, writer->Close());
  return AddBlob(context_, blob, path, output_, digest);
}

std::unique_ptr<LayerEvidence> OpenEvidence(const TaskContext* context, Place place) {
  return std::make_unique<BlobEvidence>(context, place);
}

}  // namespace lwq
