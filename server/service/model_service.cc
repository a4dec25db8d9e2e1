#include "server/service/model_service.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/model_directory.h"
#include "server/service/quotas.h"
#include "server/service/record_writes.h"
#include "server/service/request_log.h"
#include "server/service/tenancy.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr char kServiceName[] = "ModelService";
constexpr int kMaxWaitSeconds = 20;
constexpr size_t kIdPrefix = 40;
// Of what an inventory holds. Raised when that grows, so that a directory that was registered
// before is read again, as another model; jobs keep the one that they have.
constexpr absl::string_view kInventoryVersion = "2";

struct FileStamp {
  int64_t size = 0;
  int64_t modified_ns = 0;
};

absl::StatusOr<FileStamp> StampOf(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return absl::NotFoundError(path);
  return FileStamp{info.st_size,
                   info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec};
}

bool Unchanged(const v1::Model& model) {
  if (model.manifest().files().empty()) return false;
  return std::all_of(model.manifest().files().begin(), model.manifest().files().end(),
                     [&](const auto& file) {
                       auto stamp = StampOf(FileOfModel(model.source().directory(), file.name()));
                       return stamp.ok() && stamp->size == file.size_bytes() &&
                              stamp->modified_ns == file.modified_ns();
                     });
}

// From the name of the directory or file, the names, sizes and times of its files, and whose it is.
absl::StatusOr<std::string> IdOf(const std::string& directory, const std::string& tenant) {
  std::vector<std::string> names = {Basename(directory)};  // of a GGUF file
  if (IsDirectory(directory)) {
    LWQ_ASSIGN_OR_RETURN(names, ListDirectory(directory));
  }
  Sha256 hash;
  hash.Update(absl::StrCat(kInventoryVersion, "\n"));
  // No tenant's is another's, or would tell that the other has it.
  if (tenant != kDefaultTenant) hash.Update(absl::StrCat("tenants/", tenant, "\n"));
  hash.Update(directory);
  for (const std::string& name : names) {
    auto stamp = StampOf(FileOfModel(directory, name));
    if (!stamp.ok()) continue;
    hash.Update(absl::StrCat("\n", name, "\n", stamp->size, "\n", stamp->modified_ns));
  }
  return absl::StrCat(MakeId(Basename(directory), kIdPrefix), "-", hash.FinishHex().substr(0, 10));
}

// GetModel that waits for the end of verification.
class ModelWait final : public grpc::ServerUnaryReactor, public LongCall {
 public:
  ModelWait(ServiceEnv& env, grpc::CallbackServerContext* context,
            const v1::GetModelRequest& request, v1::Model* response)
      : env_(env),
        name_(request.name()),
        response_(response),
        deadline_(env.scheduler->clock().Steady() +
                  absl::Seconds(std::clamp(request.wait_seconds(), 0, kMaxWaitSeconds))),
        record_(env, context, kServiceName, "GetModel", this) {}

  void Begin() {
    if (absl::Status admitted = record_.Admit(); !admitted.ok()) return End(admitted);
    model_hint_ = env_.scheduler->hints().Add(name_, [this] { Look(); });
    tick_hint_ = env_.scheduler->hints().Add(kTickTopic, [this] { Look(); });
    Look();
  }
  void Drain() override { End(DrainingError()); }
  void OnCancel() override { End(absl::CancelledError("the caller has gone")); }
  void OnDone() override {
    env_.scheduler->hints().Remove(model_hint_);
    env_.scheduler->hints().Remove(tick_hint_);
    delete this;
  }

 private:
  // Models are in memory, so this may run anywhere.
  void Look() {
    absl::StatusOr<v1::Model> model = SeenModel(*env_.scheduler, record_.caller(), name_);
    if (!model.ok()) return End(model.status());
    if (model->state() == v1::Model::VERIFYING && env_.scheduler->clock().Steady() < deadline_ &&
        !env_.scheduler->draining) {
      return;
    }
    if (!record_.TakeFinish()) return;
    *response_ = *std::move(model);
    Finish(record_.Close(absl::OkStatus()));
  }
  void End(const absl::Status& status) {
    if (record_.TakeFinish()) Finish(record_.Close(status));
  }

  ServiceEnv& env_;
  const std::string name_;
  v1::Model* const response_;
  const absl::Duration deadline_;  // by the steady clock
  CallRecord record_;
  int64_t model_hint_ = 0;
  int64_t tick_hint_ = 0;
};

// Whether another call has made the wanted model since the caller looked. ALREADY_EXISTS where the
// name went to something else.
absl::StatusOr<bool> StandsAlready(const Draft& draft, const v1::Model& wanted) {
  const v1::Model* taken = draft.FindModel(wanted.name());
  if (taken == nullptr) return false;
  const bool own = TenantOf(*taken) == TenantOf(wanted);
  if (own && taken->state() == v1::Model::REJECTED) return false;
  if (own && taken->source().directory() == wanted.source().directory()) return true;
  return Failure(reasons::kAlreadyExists,
                 absl::StrCat(wanted.name(), " was just taken; choose another model_id"));
}

}  // namespace

absl::Status ModelServiceImpl::DoCreate(const Caller& caller, const v1::CreateModelRequest& request,
                                        v1::Model& response) {
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(env_.scheduler->store(), mark));
  if (!replayed.empty()) {
    LWQ_ASSIGN_OR_RETURN(response, SeenModel(*env_.scheduler, caller, replayed));
    return absl::OkStatus();
  }
  FieldErrors errors;
  if (!request.model_id().empty() && !IsResourceId(request.model_id())) {
    errors.Add("model_id", "is not a lower-case id of at most 63 letters, digits and dashes",
               "NAME_INVALID");
  }
  CheckLabels(request.labels(), errors);
  LWQ_RETURN_IF_ERROR(errors.status());
  LWQ_ASSIGN_OR_RETURN(const std::string directory,
                       CheckDirectory(request.source().directory(), env_.model_roots));
  std::string id = request.model_id();
  if (id.empty()) {
    LWQ_ASSIGN_OR_RETURN(id, IdOf(directory, caller.tenant));
  }
  v1::Model model;
  model.set_name(absl::StrCat("models/", id));
  model.set_tenant(caller.tenant);
  model.mutable_source()->set_directory(directory);
  *model.mutable_labels() = request.labels();
  absl::StatusOr<v1::Model> existing = env_.scheduler->GetModel(model.name());
  if (existing.ok() && TenantOf(*existing) != caller.tenant) {
    return Failure(reasons::kAlreadyExists,
                   absl::StrCat(model.name(), " is taken; choose another model_id"));
  }
  if (existing.ok() && existing->state() != v1::Model::REJECTED) {
    const bool same = existing->source().directory() == directory;
    if (same && (existing->state() == v1::Model::VERIFYING || Unchanged(*existing))) {
      response = *std::move(existing);
      return absl::OkStatus();
    }
    return Failure(reasons::kAlreadyExists,
                   absl::StrCat(model.name(),
                                " stands for other content: its files have changed "
                                "or it lies elsewhere; choose another model_id or delete it"));
  }
  const TaskNode ingest = BuildIngest(model, RandomHex(8));
  const absl::Status started = env_.scheduler->Run([&](Draft& draft) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const bool stands, StandsAlready(draft, model));
    if (stands) return absl::OkStatus();
    LWQ_RETURN_IF_ERROR(CheckModels(draft, caller.tenant));
    RememberRequest(mark, model.name(), draft);
    return StartModel(draft, model, ingest);
  });
  std::string name = model.name();
  if (!started.ok()) {
    LWQ_ASSIGN_OR_RETURN(name, FindOvertaking(env_.scheduler->store(), mark, started));
  }
  LWQ_ASSIGN_OR_RETURN(response, env_.scheduler->GetModel(name));
  return absl::OkStatus();
}

absl::Status ModelServiceImpl::DoList(const Caller& caller, const v1::ListModelsRequest& request,
                                      v1::ListModelsResponse& response) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> tenants,
                       TenantsToList(caller, request.tenant(), request.all_tenants()));
  LWQ_ASSIGN_OR_RETURN(const int page, PageSize(request.page_size(), 50));
  ListQuery after;
  LWQ_RETURN_IF_ERROR(ApplyPageToken(request.page_token(), "models", after));
  size_t bytes = 0;
  env_.scheduler->View([&](const DispatchState& state) {
    for (auto it = state.models().upper_bound(after.after_key); it != state.models().end(); ++it) {
      if (!tenants.empty() && TenantOf(it->second) != tenants[0]) continue;
      const int listed = response.models_size();
      if (listed == page || bytes > kMaxPageBytes) {
        response.set_next_page_token(
            MakePageToken({.key = response.models(listed - 1).name()}, "models"));
        return;
      }
      *response.add_models() = it->second;
      // Digests and inventories are in GetModel; a page has room for many models.
      v1::ModelManifest& manifest =
          *response.mutable_models(response.models_size() - 1)->mutable_manifest();
      manifest.clear_layer_digests();
      manifest.mutable_inventory()->clear_units();
      manifest.mutable_inventory()->clear_dense();
      bytes += response.models(listed).ByteSizeLong();
    }
  });
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ModelServiceImpl::CreateModel(grpc::CallbackServerContext* context,
                                                        const v1::CreateModelRequest* request,
                                                        v1::Model* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "CreateModel", *env_.files,
      [=, this](const Caller& caller) { return DoCreate(caller, *request, *response); },
      {request, response});
}

grpc::ServerUnaryReactor* ModelServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* request,
                                                     v1::Model* response) {
  auto* call = new ModelWait(env_, context, *request, response);
  call->Begin();
  return call;
}

grpc::ServerUnaryReactor* ModelServiceImpl::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest* request,
                                                       v1::ListModelsResponse* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "ListModels", *env_.read,
      [=, this](const Caller& caller) { return DoList(caller, *request, *response); });
}

grpc::ServerUnaryReactor* ModelServiceImpl::DeleteModel(grpc::CallbackServerContext* context,
                                                        const v1::DeleteModelRequest* request,
                                                        v1::DeleteModelResponse*) {
  return RunUnaryAs(
      env_, context, kServiceName, "DeleteModel", *env_.write,
      [=, this](const Caller& caller) -> absl::Status {
        LWQ_RETURN_IF_ERROR(CheckName(request->name(), "models"));
        LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(*request, caller.tenant));
        LWQ_ASSIGN_OR_RETURN(const std::string replayed,
                             FindRequest(env_.scheduler->store(), mark));
        if (!replayed.empty()) return absl::OkStatus();
        LWQ_RETURN_IF_ERROR(SeenModel(*env_.scheduler, caller, request->name()).status());
        return env_.scheduler->Run([&](Draft& draft) {
          RememberRequest(mark, request->name(), draft);
          return RemoveModel(draft, request->name());
        });
      },
      {request});
}

}  // namespace lwq
