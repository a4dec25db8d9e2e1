// Of every channel of each input: the largest magnitude, the mean magnitude (AWQ's and
// SmoothQuant's scales, methods 4.1 and 4.2) and the mean square (the diagonal of the second
// moments).
#include "worker/engine/evidence/channel_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/status_macros.h"
#include "base/thread_pool.h"

namespace lwq {

extern const CollectorDef channel_statistics_collector;

namespace {

class ChannelStatistics : public Collector {
 public:
  explicit ChannelStatistics(const CollectorContext& context) : context_(context) {
    for (const InputSpec& input : context.inputs) {
      sums_.emplace_back(static_cast<size_t>(input.features));
    }
  }

  absl::Status ObserveInput(size_t input, DeviceView<const float> x) override {
    constexpr int64_t kRows = 256, kChannels = 64;
    std::vector<Sums>& sums = sums_[input];
    Matrix host(std::min(kRows, x.rows), x.cols);
    for (int64_t begin = 0; begin < x.rows; begin += kRows) {
      const MatrixView rows = host.view().Rows(0, std::min(kRows, x.rows - begin));
      LWQ_RETURN_IF_ERROR(context_.device->Download(x.Rows(begin, rows.rows), rows));
      // Each channel in the order of tokens, whatever the number of threads.
      context_.device->host_threads().ParallelForBlocks(
          x.cols, kChannels, [&](int64_t first, int64_t end) {
            for (int64_t r = 0; r < rows.rows; ++r) {
              for (int64_t c = first; c < end; ++c) {
                sums[static_cast<size_t>(c)].Add(std::abs(double{rows.Row(r)[c]}));
              }
            }
          });
    }
    return absl::OkStatus();
  }

  absl::Status Finish(EvidenceSink& sink) override {
    for (size_t i = 0; i < sums_.size(); ++i) {
      Matrix table(kNumChannelRows, context_.inputs[i].features);
      for (int64_t c = 0; c < table.cols(); ++c) {
        const Sums& channel = sums_[i][static_cast<size_t>(c)];
        const double count = static_cast<double>(std::max<int64_t>(channel.count, 1));
        table.Row(kLargestMagnitude)[c] = static_cast<float>(channel.largest);
        table.Row(kMeanMagnitude)[c] = static_cast<float>(channel.magnitude / count);
        table.Row(kMeanSquare)[c] = static_cast<float>(channel.square / count);
      }
      LWQ_RETURN_IF_ERROR(
          sink.AddTable(channel_statistics_collector.name, context_.inputs[i], table.view()));
    }
    return absl::OkStatus();
  }

 private:
  struct Sums {
    double largest = 0, magnitude = 0, square = 0;
    int64_t count = 0;

    void Add(double x) {
      largest = std::max(largest, x);
      magnitude += x;
      square += x * x;
      ++count;
    }
  };

  const CollectorContext context_;
  std::vector<std::vector<Sums>> sums_;  // by input and channel
};

absl::StatusOr<std::unique_ptr<Collector>> Make(const CollectorContext& context) {
  return std::make_unique<ChannelStatistics>(context);
}

}  // namespace

const CollectorDef channel_statistics_collector = {
    .name = "channel-statistics",
    .help = "the largest and the mean magnitude and the mean square of each input's channels",
    .watches_inputs = true,
    .watches_directions = false,
    .make = &Make,
};

}  // namespace lwq
