// Some rows of each input as they are, for what depends on single tokens and not on their sums: how
// much is lost when each is rounded by a scale of its own. Every token is as likely to be among
// them as any other (reservoir sampling), drawn by its place alone, so that the same text gives the
// same rows.
#include "worker/engine/evidence/input_rows.h"

#include <algorithm>
#include <memory>

#include "base/status_macros.h"
#include "worker/engine/evidence/collector.h"

namespace lwq {

extern const CollectorDef input_rows_collector;

namespace {

// Steele, Lea and Flood's SplitMix64.
uint64_t Mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class InputRows : public Collector {
 public:
  explicit InputRows(const CollectorContext& context)
      : context_(context), samples_(context.inputs.size()) {}

  absl::Status ObserveInput(size_t input, DeviceView<const float> x) override {
    Sample& sample = Open(input);
    for (int64_t r = 0; r < x.rows; ++r) {
      const uint64_t seen = sample.seen++;
      const uint64_t place = seen < kNumInputRows ? seen : Mixed(seen) % (seen + 1);
      if (place >= kNumInputRows) continue;
      const MatrixView row = sample.rows->view().Rows(static_cast<int64_t>(place), 1);
      LWQ_RETURN_IF_ERROR(context_.device->Download(x.Rows(r, 1), row));
    }
    return absl::OkStatus();
  }
  absl::Status FinishInput(size_t input, EvidenceSink& sink) override {
    Open(input);
    return Give(input, sink);
  }
  absl::Status Finish(EvidenceSink& sink) override {
    for (size_t i = 0; i < samples_.size(); ++i) {
      if (!context_.inputs[i].routed) Open(i);
      LWQ_RETURN_IF_ERROR(Give(i, sink));
    }
    return absl::OkStatus();
  }

 private:
  struct Sample {
    std::unique_ptr<Matrix> rows;
    uint64_t seen = 0;
  };

  Sample& Open(size_t input) {
    Sample& sample = samples_[input];
    if (sample.rows == nullptr) {
      sample.rows = std::make_unique<Matrix>(kNumInputRows, context_.inputs[input].features);
      std::fill_n(sample.rows->data(), sample.rows->size(), 0.0f);
    }
    return sample;
  }
  // Nothing where it was given already.
  absl::Status Give(size_t input, EvidenceSink& sink) {
    Sample& sample = samples_[input];
    if (sample.rows == nullptr) return absl::OkStatus();
    LWQ_RETURN_IF_ERROR(
        sink.AddTable(input_rows_collector.name, context_.inputs[input], sample.rows->view()));
    sample.rows.reset();
    return absl::OkStatus();
  }

  const CollectorContext context_;
  std::vector<Sample> samples_;  // by input
};

absl::StatusOr<std::unique_ptr<Collector>> MakeInputRows(const CollectorContext& context) {
  return std::make_unique<InputRows>(context);
}

}  // namespace

const CollectorDef input_rows_collector = {
    .name = "input-rows",
    .help = "128 rows of each input, drawn from all tokens alike",
    .watches_inputs = true,
    .watches_directions = false,
    .make = &MakeInputRows,
};

}  // namespace lwq
