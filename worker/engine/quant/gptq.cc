// GPTQ (methods 3.1): columns are rounded one after the other and each error is pushed onto the
// columns still to come, by the factor U of the inverse Hessian. Inside a small block of columns
// this is Device::GptqBlock; the rest of its large block is updated after each small one, all
// columns behind once a large block by one product in the type that the statistics were made for.
//
// With act-order, columns go by descending diagonal and every group's grid is fitted beforehand on
// the original weights (static groups), so the codes keep the plain layout. Without it, a group's
// grid is fitted when its first column is reached, on the weights as updated so far, and small
// blocks never straddle groups: the result does not depend on block sizes. The scale search is
// weighted with the damped diagonal of H.
//
// Widths up to kMaxRefinedBits are then refined (refinement.h) where the statistics kept H, and
// blocks of GGUF types go through sweeps of their own (block_descent.h).
//
// Memory for a weight [m, n]: one working copy at a time whatever the number of widths (while
// refining three and a rounded one), the codes of every width, and an [m, kLargeBlock] buffer. What
// a width leaves is read back once, when it is done.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/quant/block_rounding.h"
#include "worker/engine/quant/linear_checks.h"
#include "worker/engine/quant/lookups.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/quant/refinement.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {

extern const QuantizerDef quantizer_gptq;

namespace {

constexpr absl::string_view kEvidence[] = {"second-moments"};
constexpr int64_t kSmallBlock = 128;
constexpr int64_t kLargeBlock = BlockedFactor::kBlock;
// Above it the error is already hundreds of times smaller than what 4 bits leave.
constexpr int kMaxRefinedBits = 4;

// One weight at one width.
class GptqRun {
 public:
  GptqRun(Device* device, DeviceView<const float> weight, const InputStatistics& statistics,
          const GridSpec& grid)
      : device_(device),
        weight_(weight),
        statistics_(statistics),
        factor_(*statistics.factor()),
        u_(factor_.u->view()),
        grid_(grid),
        group_size_(grid.GroupSizeFor(weight.cols)) {}

  absl::StatusOr<DeviceLinear> Run() {
    LWQ_RETURN_IF_ERROR(Prepare());
    const int64_t n = weight_.cols;
    for (int64_t begin = 0; begin < n; begin += kLargeBlock) {
      LWQ_RETURN_IF_ERROR(RoundLargeBlock(begin, std::min(n, begin + kLargeBlock)));
    }
    LWQ_RETURN_IF_ERROR(PutCodesInOrder());
    return std::move(out_);
  }

 private:
  absl::Status Prepare() {
    const int64_t rows = weight_.rows, cols = weight_.cols;
    LWQ_ASSIGN_OR_RETURN(out_, DeviceLinear::Create(device_, rows, cols, grid_));
    LWQ_ASSIGN_OR_RETURN(out_.loss, device_->NewBuffer<double>(1, rows));
    LWQ_RETURN_IF_ERROR(device_->FillZero(out_.loss->span()));
    LWQ_ASSIGN_OR_RETURN(work_, device_->NewMatrix(rows, cols));
    LWQ_ASSIGN_OR_RETURN(error_, device_->NewMatrix(rows, std::min(kLargeBlock, cols)));
    LWQ_RETURN_IF_ERROR(device_->GatherColumns(weight_, statistics_.device_order(), work_->view()));
    return statistics_.act_order() ? FitGroups(weight_, 0) : absl::OkStatus();
  }

  // Fits the grids of the groups that `columns` holds, from `first_group` on.
  absl::Status FitGroups(DeviceView<const float> columns, int64_t first_group) {
    const int64_t count = columns.cols / group_size_;
    GridSpec grid = grid_;
    grid.group_size = group_size_;
    return device_->FitGrid(
        columns, grid, statistics_.column_weights().Part(first_group * group_size_, columns.cols),
        out_.scales->view().Cols(first_group, count),
        grid_.symmetric ? DeviceView<float>() : out_.zeros->view().Cols(first_group, count));
  }

  // Without act-order: fits the group that begins at column `first` to the weights as updated so
  // far, inside the large block [begin, end) too. What lies behind that gets its updates only when
  // the block is done, so a group that reaches there is fitted on a copy that has them.
  absl::Status FitGroupAt(int64_t first, int64_t begin, int64_t end) {
    const int64_t group_end = first + group_size_;
    const DeviceView<float> group = work_->view().Cols(first, group_size_);
    if (group_end <= end || first == begin) return FitGroups(group, first / group_size_);
    LWQ_ASSIGN_OR_RETURN(auto copy, device_->NewMatrix(weight_.rows, group_size_));
    LWQ_RETURN_IF_ERROR(device_->Copy(group, copy->view()));
    LWQ_RETURN_IF_ERROR(
        device_->SubtractProduct(error_->view().Cols(0, first - begin),
                                 u_.Rows(begin, first - begin).Cols(end, group_end - end),
                                 copy->view().Cols(end - first, group_end - end)));
    return FitGroups(copy->view(), first / group_size_);
  }

  // Columns [begin, end): small blocks with what they change inside, then the columns behind.
  absl::Status RoundLargeBlock(int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t first = begin; first < end; first += count) {
      count = std::min(kSmallBlock, end - first);
      if (!statistics_.act_order()) {
        const int64_t group_end = (first / group_size_ + 1) * group_size_;
        count = std::min(count, group_end - first);
        if (first % group_size_ == 0) LWQ_RETURN_IF_ERROR(FitGroupAt(first, begin, end));
      }
      const DeviceView<float> error = error_->view().Cols(first - begin, count);
      LWQ_RETURN_IF_ERROR(RoundColumns(first, count, error));
      const int64_t next = first + count;
      LWQ_RETURN_IF_ERROR(device_->SubtractProduct(error,
                                                   u_.Rows(first, count).Cols(next, end - next),
                                                   work_->view().Cols(next, end - next)));
    }
    if (end == weight_.cols) return absl::OkStatus();
    return device_->SubtractLinear(error_->view(), factor_.RowsFrom(begin),
                                   work_->view().Cols(end, weight_.cols - end));
  }

  absl::Status RoundColumns(int64_t first, int64_t count, DeviceView<float> error) {
    GptqColumns block;
    block.w = work_->view().Cols(first, count);
    block.u = u_.Rows(first, count).Cols(first, count);
    block.grid = grid_;
    block.scales = out_.scales->view();
    block.zeros = out_.zeros_view();
    block.columns = statistics_.device_order().Part(first, count);
    block.in_features = weight_.cols;
    block.codes = out_.codes->view().Cols(first, count);
    block.error = error;
    block.loss = out_.loss->span();
    return device_->GptqBlock(block);
  }

  // From the order of processing to the columns' original one.
  absl::Status PutCodesInOrder() {
    if (!statistics_.act_order()) return absl::OkStatus();
    LWQ_ASSIGN_OR_RETURN(auto codes, device_->NewBuffer<uint8_t>(weight_.rows, weight_.cols));
    LWQ_RETURN_IF_ERROR(
        device_->GatherColumns(out_.codes->view(), statistics_.device_places(), codes->view()));
    out_.codes = std::move(codes);
    return absl::OkStatus();
  }

  Device* const device_;
  const DeviceView<const float> weight_;
  const InputStatistics& statistics_;
  const BlockedFactor& factor_;
  const DeviceView<const float> u_;
  const GridSpec grid_;
  const int64_t group_size_;
  DeviceLinear out_;                     // its codes in the order of processing
  std::unique_ptr<DeviceMatrix> work_;   // [m, n], columns in the order of processing
  std::unique_ptr<DeviceMatrix> error_;  // [m, kLargeBlock]
};

constexpr OptionDef kBlockFeedback = {
    .name = "block-feedback",
    .type = OptionDef::Type::kFlag,
    .default_value = "true",
    .help = "makes up for errors in the columns that follow, in GGUF's blocks",
};
constexpr OptionDef kBlockRefinement = {
    .name = "block-refinement",
    .type = OptionDef::Type::kFlag,
    .default_value = "true",
    .help = "sweeps over GGUF's blocks refit scales besides codes",
};
constexpr OptionDef kBlockSweeps = {
    .name = "block-sweeps",
    .type = OptionDef::Type::kInteger,
    .default_value = "4",
    .minimum = 0,
    .maximum = 100,
    .help = "at most so many sweeps that refine GGUF's blocks afterwards",
};
constexpr OptionDef kActOrder = {
    .name = "act-order",
    .type = OptionDef::Type::kFlag,
    .default_value = "true",
    .help = "columns with the largest inputs first; the stored order stays",
};
constexpr OptionDef kDamping = {
    .name = "damping",
    .type = OptionDef::Type::kNumber,
    .default_value = "0.01",
    .minimum = 0,
    .maximum = 1,
    .help = "added to the diagonal of the second moments, times its mean",
};
constexpr OptionDef kRefinement = {
    .name = "refinement",
    .type = OptionDef::Type::kFlag,
    .default_value = "true",
    .help = "sweeps that refine codes and scales afterwards; without them GPTQ as published",
};
constexpr OptionDef kOptions[] = {kActOrder, kBlockFeedback, kBlockRefinement, kBlockSweeps,
                                  kDamping,  kLookupShare,   kRefinement,      kScaleSearch};

class GptqQuantizer : public Quantizer {
 public:
  explicit GptqQuantizer(const OptionValues& options) {
    options_.act_order = options.Flag(kActOrder.name);
    options_.damping = options.Number(kDamping.name);
    options_.refinement = options.Flag(kRefinement.name);
    blocks_ = {.feedback = options.Flag(kBlockFeedback.name),
               .sweeps = static_cast<int>(options.Integer(kBlockSweeps.name)),
               .refinement = options.Flag(kBlockRefinement.name)};
  }

  absl::StatusOr<std::shared_ptr<const InputStatistics>> Prepare(
      Device* device, std::unique_ptr<DeviceMatrix> gram, int64_t num_tokens,
      ComputeType compute) const override {
    InputStatistics::Options options = options_;
    options.compute = compute;
    return InputStatistics::Create(device, std::move(gram), num_tokens, options);
  }

  absl::StatusOr<std::vector<QuantizedLinear>> Quantize(
      Device* device, DeviceView<const float> weight, const InputStatistics* statistics,
      absl::Span<const GridSpec> grids) const override {
    LWQ_RETURN_IF_ERROR(CheckStatistics(statistics, weight));
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, grids));
    const bool factored = statistics->factor() != nullptr;
    std::vector<QuantizedLinear> out;
    for (const GridSpec& grid : grids) {
      LWQ_ASSIGN_OR_RETURN(
          DeviceLinear linear,
          factored ? GptqRun(device, weight, *statistics, grid).Run()
                   : RoundToNearest(device, weight, grid, statistics->column_weights()));
      if (statistics->hessian() != nullptr && grid.bits <= kMaxRefinedBits) {
        LWQ_RETURN_IF_ERROR(Refine(device, weight, *statistics, &linear));
      }
      LWQ_ASSIGN_OR_RETURN(QuantizedLinear quantized, ReadBack(device, weight, linear));
      Describe(*statistics, quantized.record);
      out.push_back(std::move(quantized));
    }
    return out;
  }

  absl::StatusOr<std::vector<BlockLinear>> QuantizeToBlocks(
      Device* device, DeviceView<const float> weight, const InputStatistics* statistics,
      absl::Span<const GgufTypeDef* const> types, GgufFit fit) const override {
    LWQ_RETURN_IF_ERROR(CheckStatistics(statistics, weight));
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, {}));
    std::vector<BlockLinear> out;
    for (const GgufTypeDef* type : types) {
      LWQ_ASSIGN_OR_RETURN(
          BlockLinear blocks,
          statistics->factor() != nullptr
              ? RoundToBlocksFor(*statistics, blocks_, device, weight, *type, fit)
              : RoundToBlocks(device, weight, *type, fit, statistics->column_weights()));
      Describe(*statistics, blocks.record);
      out.push_back(std::move(blocks));
    }
    return out;
  }

 private:
  static absl::Status CheckStatistics(const InputStatistics* statistics,
                                      DeviceView<const float> weight) {
    if (statistics == nullptr) {
      return Failure(reasons::kCalibrationMissing,
                     absl::StrCat(quantizer_gptq.name, " needs the inputs' second moments"));
    }
    if (statistics->in_features() == weight.cols) return absl::OkStatus();
    return Failure(reasons::kShape, absl::StrCat("second moments of ", statistics->in_features(),
                                                 " inputs given for a weight with ", weight.cols));
  }

  static void Describe(const InputStatistics& statistics, LinearRecord& record) {
    const bool factored = statistics.factor() != nullptr;
    record.method = std::string(factored ? quantizer_gptq.name : kRoundToNearest);
    if (!factored) record.note = "no factor of the inputs' second moments; rounded to nearest";
    record.damping = statistics.damping_used();
    record.damping_retries = statistics.damping_retries();
    record.num_dead_columns = statistics.num_dead_columns();
  }

  InputStatistics::Options options_;
  BlockMethod blocks_;
};

std::unique_ptr<Quantizer> MakeGptq(const OptionValues& options) {
  return std::make_unique<GptqQuantizer>(options);
}

}  // namespace

constinit const QuantizerDef quantizer_gptq = {
    .name = "gptq",
    .help = "rounds column by column and makes up for each error in the columns that follow",
    .evidence = kEvidence,
    .options = kOptions,
    .make = &MakeGptq,
};

}  // namespace lwq
