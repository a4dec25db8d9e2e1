// Evidence in memory: what collectors leave, for those who read it.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/evidence/collector.h"
#include "worker/engine/evidence/evidence.h"

namespace lwq::testing {

class CollectedEvidence : public EvidenceSink, public LayerEvidence {
 public:
  explicit CollectedEvidence(Device* device) : device_(device) {}

  std::map<std::string, double> values;

  absl::Status AddValue(absl::string_view name, double value) override {
    values[std::string(name)] = value;
    return absl::OkStatus();
  }
  absl::Status AddTable(absl::string_view name, const InputSpec& input,
                        ConstMatrixView table) override {
    tables_[{std::string(name), input.name}] = CopyOf(table);
    return absl::OkStatus();
  }
  absl::Status AddTriangle(absl::string_view name, const InputSpec& input,
                           DeviceView<const float> triangle) override {
    Matrix host(triangle.rows, triangle.cols);
    LWQ_RETURN_IF_ERROR(device_->Download(triangle, host.view()));
    tables_[{std::string(name), input.name}] = std::move(host);
    return absl::OkStatus();
  }

  int64_t tokens = 0;
  int64_t num_tokens() const override { return tokens; }
  absl::StatusOr<double> Value(absl::string_view name) const override {
    const auto found = values.find(std::string(name));
    if (found == values.end()) return Missing(name);
    return found->second;
  }
  absl::StatusOr<Matrix> Table(absl::string_view name, const InputSpec& input,
                               int64_t num_rows) const override {
    const auto found = tables_.find({std::string(name), input.name});
    if (found == tables_.end()) return Missing(name);
    if (found->second.rows() != num_rows) return absl::DataLossError("a table of other rows");
    return CopyOf(found->second.view());
  }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Triangle(absl::string_view name,
                                                         const InputSpec& input) const override {
    LWQ_ASSIGN_OR_RETURN(const Matrix host, Table(name, input, input.features));
    LWQ_ASSIGN_OR_RETURN(auto triangle, device_->NewMatrix(host.rows(), host.cols()));
    LWQ_RETURN_IF_ERROR(device_->Upload(host.view(), triangle->view()));
    return triangle;
  }

 private:
  static Matrix CopyOf(ConstMatrixView from) {
    Matrix to(from.rows, from.cols);
    for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.Row(r), from.cols, to.Row(r));
    return to;
  }
  static absl::Status Missing(absl::string_view name) {
    return absl::NotFoundError(std::string(name) + " was not collected");
  }

  Device* const device_;
  std::map<std::pair<std::string, std::string>, Matrix> tables_;
};

}  // namespace lwq::testing
