#include "server/dispatch/evaluation_work.h"

#include <algorithm>
#include <map>
#include <string>

#include "records/plan_records.h"
#include "server/dispatch/task_work.h"
#include "worker/engine/plan/memory_model.h"

namespace lwq {
namespace {

// A line of multiple choice, contexts and choices, where only the number of lines is known.
constexpr double kBytesPerItem = 400;
// Code, figures and small vocabularies have about so few bytes per token; fewer are rare.
constexpr double kFewBytesPerToken = 3;

// Both models measure one text where the dataset is the same and so is what is asked for.
bool SameText(const v1::EvaluateTask& a, const v1::EvaluateTask& b) {
  return a.dataset().sha256() == b.dataset().sha256() && a.text_tokens() == b.text_tokens();
}

double Recounted(const Draft& draft, const v1::TaskRecord& task, int64_t rolling_tokens) {
  const v1::Model* model = draft.FindModel(task.model());
  if (model == nullptr) return 0;
  const absl::StatusOr<ModelInventory> inventory = InventoryOf(model->manifest().inventory());
  if (!inventory.ok()) return 0;
  const WorkModel work(&*inventory);
  return EvaluationWork(work, task.spec().evaluate(), rolling_tokens).Operations();
}

}  // namespace

Work EvaluationWork(const WorkModel& model, const v1::EvaluateTask& task,
                    std::optional<int64_t> rolling_tokens) {
  const auto bytes = static_cast<double>(task.dataset().size_bytes());
  const double all = bytes / kBytesPerToken;
  // A text has windows of a length; items have a limit at most.
  if (task.sequence_length() == 0) {
    const double limit = static_cast<double>(task.limit()) * kBytesPerItem / kBytesPerToken;
    return model.EvaluateChoices(limit > 0 ? std::min(limit, all) : all);
  }
  const auto wanted = static_cast<double>(task.text_tokens());
  const double rolling_bytes =
      wanted > 0 ? std::min(wanted * static_cast<double>(kRollingBytesPerToken), bytes) : bytes;
  const double rolling = rolling_tokens.has_value() ? static_cast<double>(*rolling_tokens)
                                                    : rolling_bytes / kFewBytesPerToken;
  return model.EvaluateText({.tokens = wanted > 0 ? std::min(wanted, all) : all,
                             .sequence = static_cast<double>(task.sequence_length())},
                            rolling, task.subject() == "artifact");
}

double OperationsDone(const Draft& draft, const v1::TaskRecord& task,
                      const v1::TaskOutput& output) {
  const int64_t rolling = output.evaluate().text().num_rolling_tokens();
  if (rolling <= 0 || task.operations() <= 0) return task.operations();
  const double counted = Recounted(draft, task, rolling);
  return counted > 0 ? counted : task.operations();
}

void RecountEvaluations(Draft& draft, const v1::JobRecord& job) {
  std::vector<const v1::TaskRecord*> done, open;
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->kind() != "evaluate") continue;
    (task->state() == v1::TaskRecord::DONE ? done : open).push_back(task);
  }
  for (const v1::TaskRecord* task : open) {
    for (const v1::TaskRecord* known : done) {
      const int64_t rolling = known->output().evaluate().text().num_rolling_tokens();
      if (rolling <= 0 || !SameText(known->spec().evaluate(), task->spec().evaluate())) continue;
      const double counted = Recounted(draft, *task, rolling);
      if (counted > 0 && task->operations() > 0) {
        draft.EditTask(task->key())->set_operations(counted);
      }
      break;
    }
  }
}

}  // namespace lwq
