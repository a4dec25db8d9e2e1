// plan: what a quantize job would do, without a job.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/budget_text.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/results.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/spec_flags.h"
#include "client/table.h"

namespace lwq::client {
namespace {

std::string PlanText(const v1::QuantizeSpec& spec, const v1::PlanJobResponse& response) {
  const v1::PlanSummary& plan = response.plan();
  Table table({"", ""});
  table.AddRow({"budget", FormatBudget(spec.budget())});
  table.AddRow({"smallest plan", absl::StrCat(FormatCount(response.smallest_bytes()), " bytes")});
  table.AddRow({"largest plan", absl::StrCat(FormatCount(response.largest_bytes()), " bytes")});
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

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  v1::PlanJobRequest request;
  LWQ_ASSIGN_OR_RETURN(*request.mutable_spec(), SpecFromFlags(flags));
  LWQ_RETURN_IF_ERROR(CheckDatasetFiles(flags));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(flags));
  request.mutable_spec()->set_model(FullName("models", invocation.arguments[0]));
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
    .arguments = "MODEL",
    .summary = "Says what a job would do: exact bytes, formats, memory; starts nothing.",
    .examples = "  lwqctl plan llama --budget 3.25bpw\n",
    .flags = {},
    .more_flags = SpecFlags,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
