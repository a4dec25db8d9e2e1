#include "worker/engine/artifact/artifact_writer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/hashing_writer.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/artifact_config.h"
#include "worker/engine/artifact/companion_files.h"
#include "worker/engine/artifact/edits_blob.h"
#include "worker/engine/artifact/linear_coding.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kMaxCompanionBytes = int64_t{64} << 20;
constexpr size_t kChunkBytes = size_t{8} << 20;

absl::Status PlanMismatch(const TensorSpec& planned, const TensorView& found) {
  return Failure(
      reasons::kPlanMismatch,
      absl::StrCat("tensor ", planned.name, " is ", NameOf(found.dtype), " [",
                   absl::StrJoin(found.shape, ", "), "], planned was ", NameOf(planned.dtype), " [",
                   absl::StrJoin(planned.shape, ", "), "]"));
}

class PlanProvider : public TensorProvider {
 public:
  explicit PlanProvider(const ArtifactPlan& plan)
      : plan_(plan),
        kept_(KeepLayers(*plan.model, *plan.plan)),
        coding_(CodingOf(*plan.model->artifact_format)) {
    for (size_t i = 0; i < kept_.model.units.size(); ++i) {
      const WeightFormat* format = kept_.plan[i];
      if (format->dense()) continue;
      for (const LinearShape& linear : kept_.model.units[i].linears) {
        for (const TensorSpec& tensor : LinearTensors(kept_.model, linear, *format)) {
          quantized_.emplace(tensor.name, Origin{kept_.InSource(linear.module), format});
        }
      }
    }
  }

  absl::StatusOr<absl::Span<const uint8_t>> Read(const TensorSpec& tensor) override {
    TensorView view;
    const auto origin = quantized_.find(tensor.name);
    if (origin == quantized_.end()) {
      LWQ_ASSIGN_OR_RETURN(
          view, EditedTensor(*plan_.source, plan_.edits, kept_.InSource(tensor.name), made_));
    } else {
      LWQ_ASSIGN_OR_RETURN(const StoredLinear linear,
                           plan_.blobs->Find(origin->second.module, origin->second.format));
      LWQ_ASSIGN_OR_RETURN(view, coding_.Tensor(tensor.name, linear, made_));
    }
    if (view.dtype != tensor.dtype || view.shape != tensor.shape) return PlanMismatch(tensor, view);
    return view.bytes;
  }

 private:
  struct Origin {
    std::string module;  // of the source
    const WeightFormat* format;
  };

  const ArtifactPlan plan_;
  const KeptModel kept_;
  const LinearCoding& coding_;
  absl::flat_hash_map<std::string, Origin> quantized_;
  std::string made_;  // what the last Read handed out, unless it lies in a file
};

absl::StatusOr<WrittenFile> Finish(const std::string& name, HashingWriter& writer) {
  LWQ_ASSIGN_OR_RETURN(std::string digest, writer.Finish());
  return WrittenFile{name, writer.size(), std::move(digest)};
}

absl::StatusOr<WrittenFile> WriteWhole(const std::string& directory, const std::string& name,
                                       absl::string_view content) {
  LWQ_ASSIGN_OR_RETURN(auto writer, HashingWriter::Create(JoinPath(directory, name)));
  LWQ_RETURN_IF_ERROR(writer->Append(content));
  return Finish(name, *writer);
}

absl::StatusOr<WrittenFile> WriteOneFile(const CheckpointLayout::File& file,
                                         const std::string& directory, TensorProvider* provider,
                                         const std::function<absl::Status(int64_t)>& advance) {
  LWQ_ASSIGN_OR_RETURN(auto writer, HashingWriter::Create(JoinPath(directory, file.name)));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(file.layout.header)));
  LWQ_RETURN_IF_ERROR(advance(static_cast<int64_t>(file.layout.header.size())));
  for (const TensorSpec& tensor : file.layout.tensors) {
    LWQ_ASSIGN_OR_ANNOTATE(absl::Span<const uint8_t> bytes, provider->Read(tensor), "writing ",
                           file.name);
    if (static_cast<int64_t>(bytes.size()) != tensor.size_bytes()) {
      return Failure(reasons::kForecastMismatch,
                     absl::StrCat("writing ", file.name, ": tensor ", tensor.name, " has ",
                                  bytes.size(), " bytes, forecast were ", tensor.size_bytes()));
    }
    for (size_t at = 0; at < bytes.size(); at += kChunkBytes) {
      const absl::Span<const uint8_t> chunk = bytes.subspan(at, kChunkBytes);
      LWQ_RETURN_IF_ERROR(writer->Append(chunk));
      LWQ_RETURN_IF_ERROR(advance(static_cast<int64_t>(chunk.size())));
    }
  }
  LWQ_ASSIGN_OR_RETURN(WrittenFile written, Finish(file.name, *writer));
  if (written.size_bytes != file.layout.file_bytes) {
    return Failure(reasons::kForecastMismatch,
                   absl::StrCat(file.name, " has ", written.size_bytes, " bytes, forecast were ",
                                file.layout.file_bytes));
  }
  return written;
}

}  // namespace

std::unique_ptr<TensorProvider> MakePlanProvider(const ArtifactPlan& plan) {
  return std::make_unique<PlanProvider>(plan);
}

absl::StatusOr<std::vector<WrittenFile>> WriteWeightFiles(const CheckpointLayout& layout,
                                                          const std::string& directory,
                                                          TensorProvider* provider,
                                                          const WriteProgress& progress) {
  int64_t done = 0;
  const auto advance = [&](int64_t bytes) {
    done += bytes;
    return progress ? progress(done, layout.weight_bytes) : absl::OkStatus();
  };
  std::vector<WrittenFile> files;
  for (const CheckpointLayout::File& file : layout.files) {
    LWQ_ASSIGN_OR_RETURN(WrittenFile written, WriteOneFile(file, directory, provider, advance));
    files.push_back(std::move(written));
  }
  if (!layout.index_json.empty()) {
    LWQ_ASSIGN_OR_RETURN(WrittenFile index, WriteWhole(directory, kIndexFile, layout.index_json));
    files.push_back(std::move(index));
  }
  return files;
}

absl::StatusOr<std::vector<WrittenFile>> CopyCompanionFiles(const std::string& source_directory,
                                                            const std::string& directory) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListCompanionFiles(source_directory));
  std::vector<WrittenFile> files;
  for (const std::string& name : names) {
    LWQ_ASSIGN_OR_RETURN(std::string content,
                         ReadModelFile(source_directory, name, kMaxCompanionBytes));
    LWQ_ASSIGN_OR_RETURN(WrittenFile written, WriteWhole(directory, name, content));
    files.push_back(std::move(written));
  }
  return files;
}

absl::StatusOr<std::vector<WrittenFile>> WriteArtifact(const ArtifactPlan& plan,
                                                       const std::string& directory,
                                                       const WriteProgress& progress) {
  if (plan.plan->size() != plan.model->units.size()) {
    return Failure(reasons::kPlanMismatch,
                   absl::StrCat("the plan has ", plan.plan->size(), " formats for ",
                                plan.model->units.size(), " units"));
  }
  LWQ_RETURN_IF_ERROR(MakeDirectories(directory));
  LWQ_ASSIGN_OR_RETURN(std::vector<std::string> present, ListDirectory(directory));
  if (!present.empty()) {
    return Failure(reasons::kOutputNotEmpty, absl::StrCat("writing an artifact to ", directory,
                                                          ": it already has files in it"));
  }
  const KeptModel kept = KeepLayers(*plan.model, *plan.plan);
  LWQ_ASSIGN_OR_RETURN(const std::string config, PlannedConfig(plan, kept));
  const auto provider = MakePlanProvider(plan);
  LWQ_ASSIGN_OR_RETURN(
      std::vector<WrittenFile> files,
      WriteWeightFiles(LayOutArtifact(*plan.model, *plan.plan, plan.max_shard_bytes), directory,
                       provider.get(), progress));
  LWQ_ASSIGN_OR_RETURN(WrittenFile config_file, WriteWhole(directory, kConfigFile, config));
  files.push_back(std::move(config_file));
  const SideConfig side = SideConfigOf(kept.model, kept.plan);
  if (!side.name.empty()) {
    LWQ_ASSIGN_OR_RETURN(WrittenFile written, WriteWhole(directory, side.name, side.content));
    files.push_back(std::move(written));
  }
  LWQ_ASSIGN_OR_RETURN(std::vector<WrittenFile> copied,
                       CopyCompanionFiles(plan.source->directory(), directory));
  std::move(copied.begin(), copied.end(), std::back_inserter(files));
  LWQ_RETURN_IF_ERROR(SyncDirectory(directory));
  std::sort(files.begin(), files.end(),
            [](const WrittenFile& a, const WrittenFile& b) { return a.name < b.name; });
  return files;
}

}  // namespace lwq
