// plan: what a quantize job would do, without a job.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/log.h"
#include "base/model_path.h"
#include "base/status_macros.h"
#include "client/budget_text.h"
#include "client/commands/model_argument.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/hub/hub_name.h"
#include "client/job_run.h"
#include "client/results.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/spec_flags.h"
#include "client/table.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

// What the bytes that are held against a budget are of, which its unit decides.
std::string CountedText(const v1::Budget& budget) {
  if (budget.has_bits_per_weight()) return "of linears alone";
  return budget.has_device() ? "on the device" : "of weight files";
}

std::string PlanText(const v1::QuantizeSpec& spec, const v1::PlanJobResponse& response) {
  const v1::PlanSummary& plan = response.plan();
  Table table({"", ""});
  table.AddRow({"budget", FormatBudget(spec.budget())});
  const std::string bytes = absl::StrCat(" bytes ", CountedText(spec.budget()));
  table.AddRow({"smallest plan", absl::StrCat(FormatCount(response.smallest_bytes()), bytes)});
  table.AddRow({"largest plan", absl::StrCat(FormatCount(response.largest_bytes()), bytes)});
  if (plan.units_size() > 0) {
    table.AddRow({"weight files", absl::StrCat(FormatCount(plan.weight_file_bytes()), " bytes")});
    table.AddRow({"of the budget", FormatShare(static_cast<double>(plan.plan_bytes()),
                                               static_cast<double>(plan.budget_bytes()))});
    table.AddRow({"bits per weight", absl::StrFormat("%.3f", plan.bits_per_weight())});
    table.AddRow({"formats", FormatsText(plan)});
    table.AddRow({"chosen", LogSafe(plan.explanation())});
  } else {
    table.AddRow({"formats", "known once the costs of the layers are measured"});
  }
  table.AddRow({"worker memory", FormatBytes(response.memory_bytes())});
  if (response.work().operations() > 0) {
    table.AddRow({"expected time", ForecastText(response.work())});
    table.AddRow({"computing", OperationsText(response.work())});
  }
  table.AddRow({"tasks", absl::StrCat(response.tasks_total(), ", ", response.tasks_cached(),
                                      " of them in the cache")});
  std::string text = table.Text();
  if (plan.units_size() > 0) {
    Table units({"UNIT", ">LAYER", "FORMAT"});
    for (const v1::UnitChoice& unit : plan.units()) {
      units.AddRow({LogSafe(unit.unit()), absl::StrCat(unit.layer()), LogSafe(FormatText(unit))});
    }
    absl::StrAppend(&text, "\n", units.Text());
  }
  for (const std::string& warning : response.warnings()) {
    absl::StrAppend(&text, "warning: ", LogSafe(warning), "\n");
  }
  return text;
}

// No name of a registered model ("models/llama" is one).
bool IsOfThisMachine(const std::string& model) {
  return IsModelPath(model) || absl::StartsWith(model, "/") ||
         (IsHubName(model) && !absl::StartsWith(model, "models/"));
}

// A model that the server knows by name; or a directory or a hub's model, which is registered
// first.
absl::StatusOr<std::string> ModelOf(Invocation& invocation, Session* session) {
  const std::string& model = invocation.arguments[0];
  if (!IsOfThisMachine(model)) return FullName("models", model);
  const auto note = [&](const std::string& text) { *invocation.err << text << "\n"; };
  LWQ_ASSIGN_OR_RETURN(const std::string directory, ModelDirectory(invocation, model));
  LWQ_ASSIGN_OR_RETURN(const v1::Model registered, RegisterModel(session, directory, note));
  return registered.name();
}

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  v1::PlanJobRequest request;
  LWQ_ASSIGN_OR_RETURN(*request.mutable_spec(), SpecFromFlags(flags));
  LWQ_RETURN_IF_ERROR(CheckDatasetFiles(flags));
  LWQ_ASSIGN_OR_RETURN(const auto session, IsOfThisMachine(invocation.arguments[0])
                                               ? Session::OpenEmbedded(flags)
                                               : Session::OpenService(flags));
  LWQ_ASSIGN_OR_RETURN(*request.mutable_spec()->mutable_model(),
                       ModelOf(invocation, session.get()));
  std::map<std::string, std::string> names;
  LWQ_RETURN_IF_ERROR(UploadDatasets(session->client(), flags, request.mutable_spec(), &names));
  LWQ_ASSIGN_OR_RETURN(const v1::PlanJobResponse response, session->client()->PlanJob(request));
  if (flags.Has("json")) return PrintJson(invocation, response);
  *invocation.out << PlanText(request.spec(), response);
  return kExitOk;
}

}  // namespace

extern const CommandDef kPlanCommand;
constinit const CommandDef kPlanCommand = {
    .name = "plan",
    .arguments = "MODEL|MODEL_DIR|hf://ORGANIZATION/NAME",
    .summary = "Says what a job would do: exact bytes, formats, memory, time; starts no job.",
    .examples =
        "  lwqctl plan ./llama --budget 3.25bpw    (a directory needs no server)\n"
        "  lwqctl plan llama --budget 3.25bpw\n",
    .flags = {},
    .more_flags = SpecFlags,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
