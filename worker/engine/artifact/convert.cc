#include "worker/engine/artifact/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/artifact/container.h"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/artifact/gptq_config.h"
#include "worker/engine/artifact/grid_to_gguf.h"
#include "worker/engine/artifact/linear_coding.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/model/inventory.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kManifest[] = "lwq-manifest.json";
// What the eight bits of BF16 take off a scale at most. Scales that are subnormal in F16 have
// fewer.
constexpr double kMostRounding = 0x1p-8;

absl::Status NotLossless(absl::string_view module, absl::string_view what) {
  return Failure(reasons::kFormatUnsupported,
                 absl::StrCat(module, ": ", what, "; quantize the source model again for it"));
}

bool IsGptqCoding(const LinearCoding& coding) {
  return coding.mark() == CodingOf(ArtifactFormatDefs::gptq).mark();
}

// What is read: the linears that are quantized, and the model as if none were.
struct Source {
  std::unique_ptr<Checkpoint> checkpoint;
  const LinearCoding* coding = nullptr;
  std::map<std::string, FoundLinear> linears;  // by module
  ModelInventory model;
};

// A linear's format as the dictionary puts it: a group that is the whole row may have either name.
void NameAsDeclared(const std::vector<const WeightFormat*>& declared, FoundLinear& found) {
  for (const WeightFormat* format : declared) {
    if (!SameStorage(*format, *found.format, found.in_features)) continue;
    found.format = format;
    return;
  }
}

absl::Status TakeModel(const std::string& directory, Source& source) {
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(directory));
  std::vector<TensorSpec> tensors;
  for (const std::string& name : source.checkpoint->tensor_names()) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot == std::string::npos ? 0 : dot);
    if (source.linears.count(module) > 0 && name != module + ".bias") continue;
    LWQ_ASSIGN_OR_RETURN(TensorView view, source.checkpoint->Get(name));
    tensors.push_back({name, view.dtype, std::move(view.shape)});
  }
  // Of the weights that were quantized the type is no longer known: that of the embedding, which
  // compressed-tensors' scales follow too.
  LWQ_ASSIGN_OR_RETURN(const TensorView embedding, source.checkpoint->Get(spec.embedding.tensor));
  for (const auto& [module, found] : source.linears) {
    tensors.push_back({absl::StrCat(module, ".weight"),
                       embedding.dtype,
                       {found.out_features, found.in_features}});
  }
  LWQ_ASSIGN_OR_RETURN(source.model, TakeInventoryOf(spec, tensors, directory));
  return absl::OkStatus();
}

absl::StatusOr<Source> OpenSource(const std::string& directory) {
  LWQ_ASSIGN_OR_RETURN(const DeclaredQuantization declared, ReadDeclaredQuantization(directory));
  if (declared.coding == nullptr) {
    return Failure(reasons::kQuantMethodUnsupported,
                   absl::StrCat(directory,
                                " holds a model of which nothing is quantized: there is nothing to "
                                "convert"));
  }
  Source source;
  source.coding = declared.coding;
  LWQ_ASSIGN_OR_RETURN(source.checkpoint, Checkpoint::Open(directory));
  const auto lookup = [&](absl::string_view name) { return source.checkpoint->Get(name); };
  for (const std::string& tensor : source.checkpoint->tensor_names()) {
    absl::string_view module = tensor;
    if (!absl::ConsumeSuffix(&module, source.coding->mark())) continue;
    LWQ_ASSIGN_OR_RETURN(FoundLinear found, source.coding->Find(module, lookup, declared.formats));
    if (!found.input_order.empty()) {
      return Failure(reasons::kQuantFormatUnsupported,
                     absl::StrCat(module,
                                  " is stored in activation order (desc_act, g_idx), which "
                                  "no other format that lwq writes holds; it can be "
                                  "evaluated, or the source be quantized anew"));
    }
    NameAsDeclared(declared.formats, found);
    source.linears.emplace(std::string(module), std::move(found));
  }
  LWQ_RETURN_IF_ERROR(TakeModel(directory, source));
  return source;
}

// One linear in the target's format.
class Encoder {
 public:
  Encoder(const Source& source, const ArtifactFormatDef& to, const ConvertOptions& options,
          ConvertedArtifact& report)
      : source_(source), to_(to), options_(options), report_(report) {}

  // Dense where the source's is.
  absl::StatusOr<const WeightFormat*> FormatOf(const std::string& module) const {
    const auto found = source_.linears.find(module);
    if (found == source_.linears.end()) return DenseFormat();
    const GridFormat* grid = found->second.format->grid();
    if (found->second.format->activation_rule() != ActivationRule::kNone) {
      if (&to_ == &ArtifactFormatDefs::compressed_tensors) return found->second.format;
      return NotLossless(
          module, absl::StrCat("its inputs are rounded too, which ", to_.name, " does not say"));
    }
    if (&to_ == &ArtifactFormatDefs::gguf) {
      const GgufFormat* blocks = GgufFormatOf(*grid);
      if (blocks != nullptr) return blocks;
    } else if (&to_ == &ArtifactFormatDefs::compressed_tensors ||
               (grid->symmetric() && IsGptqWidth(grid->bits()))) {
      return found->second.format;
    }
    return NotLossless(
        module, absl::StrCat("it is stored ", grid->label(), ", which ", to_.name, " cannot hold"));
  }

  absl::StatusOr<EncodedModule> Encode(const std::string& module) {
    const FoundLinear& found = source_.linears.at(module);
    LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned, source_.coding->Read(module, found));
    StoredLinear linear = owned.linear;
    linear.format = found.format;
    std::string scales;
    LWQ_RETURN_IF_ERROR(ConvertScales(module, linear.parts[1], scales));
    if (&to_ == &ArtifactFormatDefs::gguf) {
      LWQ_ASSIGN_OR_RETURN(EncodedLinear blocks, EncodeAsGguf(module, linear));
      return EncodedModule{module, std::move(blocks)};
    }
    EncodedLinear parts;
    const std::vector<PartSpec> specs =
        linear.format->Parts(linear.out_features, linear.in_features, source_.model.weight_dtype);
    for (size_t i = 0; i < specs.size(); ++i) {
      PartSpec spec = specs[i];
      spec.dtype = linear.parts[i].dtype;
      const absl::Span<const uint8_t> bytes = linear.parts[i].bytes;
      parts.push_back({std::move(spec), std::string(bytes.begin(), bytes.end())});
    }
    return EncodedModule{module, std::move(parts)};
  }

  // Linears of which some scale was rounded.
  const std::set<std::string>& rounded() const { return rounded_; }

 private:
  // To the type that the target stores; `made` keeps them.
  absl::Status ConvertScales(const std::string& module, TensorView& scales, std::string& made) {
    const DType wanted = &to_ == &ArtifactFormatDefs::compressed_tensors
                             ? GridFormat::ScaleDType(source_.model.weight_dtype)
                             : DType::kF16;
    Matrix values(scales.shape[0], scales.shape[1]);
    LWQ_RETURN_IF_ERROR(WidenToFloat(module, scales, /*refuse_non_finite=*/true, values.view()));
    made.resize(static_cast<size_t>(2 * values.size()));
    for (int64_t i = 0; i < values.size(); ++i) {
      const float scale = values.data()[i];
      const bool bf16 = wanted == DType::kBF16;
      const uint16_t stored = bf16 ? FloatToBF16(scale) : FloatToF16(scale);
      const float back = bf16 ? BF16ToFloat(stored) : F16ToFloat(stored);
      if (back != scale) LWQ_RETURN_IF_ERROR(Round(module, scale, back, wanted));
      std::memcpy(made.data() + 2 * i, &stored, 2);
    }
    scales.dtype = wanted;
    scales.bytes = {reinterpret_cast<const uint8_t*>(made.data()), made.size()};
    return absl::OkStatus();
  }

  absl::Status Round(const std::string& module, float scale, float rounded, DType wanted) {
    const double change = std::abs(double{rounded} / scale - 1);
    if (!options_.round_scales) {
      return NotLossless(module, absl::StrCat("the scale ", scale, " is not exact in ",
                                              NameOf(wanted), ", which ", to_.name,
                                              " stores; allow rounding (--round-scales) to change "
                                              "weights by up to 0.4 %"));
    }
    if (!(change <= kMostRounding)) {
      return NotLossless(module, absl::StrCat("the scale ", scale, " would become ", rounded,
                                              " in ", NameOf(wanted), ", which ", to_.name,
                                              " stores, and --round-scales changes none by more "
                                              "than 0.4 %"));
    }
    ++report_.rounded_scales;
    report_.largest_rounding = std::max(report_.largest_rounding, change);
    rounded_.insert(module);
    return absl::OkStatus();
  }

  const Source& source_;
  const ArtifactFormatDef& to_;
  const ConvertOptions& options_;
  ConvertedArtifact& report_;
  std::set<std::string> rounded_;
};

// The blobs of the units under a plan, in a folder of their own.
struct Blobs {
  Plan plan;
  std::vector<std::unique_ptr<UnitBlob>> blobs;
  BlobSet set;
};

absl::Status AddUnit(const AllocationUnit& unit, const std::string& path, Encoder& encoder,
                     Blobs& blobs, ConvertedArtifact& report) {
  const WeightFormat* format = nullptr;
  for (const LinearShape& linear : unit.linears) {
    LWQ_ASSIGN_OR_RETURN(const WeightFormat* own, encoder.FormatOf(linear.module));
    if (format != nullptr && own != format) {
      return NotLossless(
          linear.module,
          absl::StrCat("it is stored ", own->label(), " and another part of ", unit.name, " ",
                       format->label(), ", and the target engines want one format for both"));
    }
    format = own;
  }
  blobs.plan.push_back(format);
  if (format->dense()) return absl::OkStatus();
  std::vector<EncodedModule> encoded;
  for (const LinearShape& linear : unit.linears) {
    LWQ_ASSIGN_OR_RETURN(EncodedModule module, encoder.Encode(linear.module));
    encoded.push_back(std::move(module));
    ++report.linears[format->id()];
  }
  LWQ_RETURN_IF_ERROR(WriteUnitBlob(path, encoded).status());
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<UnitBlob> blob, UnitBlob::Open(path, unit, format));
  blobs.set.Add(blob.get());
  blobs.blobs.push_back(std::move(blob));
  return absl::OkStatus();
}

// Every weight of both, to the bit, as they are read by a job that evaluates them; but of the
// linears in `rounded`.
absl::Status ProveSameWeights(const Source& source, const std::set<std::string>& rounded,
                              const std::string& before, const std::string& after) {
  LWQ_ASSIGN_OR_RETURN(const ReadableArtifact was, OpenArtifact(before, before));
  LWQ_ASSIGN_OR_RETURN(const ReadableArtifact is, OpenArtifact(after, before));
  for (const auto& [module, found] : source.linears) {
    if (rounded.count(module) > 0) continue;
    Matrix x(found.out_features, found.in_features), y(found.out_features, found.in_features);
    LWQ_RETURN_IF_ERROR(was.weights->ReadLinear(module, x.view()));
    LWQ_RETURN_IF_ERROR(is.weights->ReadLinear(module, y.view()));
    if (std::equal(x.data(), x.data() + x.size(), y.data())) continue;
    return Failure(reasons::kVerifyMismatch,
                   absl::StrCat("converting ", before, " to ", after, ": the weights of ", module,
                                " are not the same"));
  }
  return absl::OkStatus();
}

// What `lwqctl artifact verify` goes by, beside the files.
absl::Status WriteManifest(const std::string& source, const std::string& directory,
                           const ArtifactFormatDef& to, ConvertedArtifact& report) {
  Json files = Json::array();
  for (const WrittenFile& file : report.files) {
    files.push_back({{"name", file.name}, {"bytes", file.size_bytes}, {"sha256", file.sha256}});
  }
  Json converted = {{"from", std::string(report.from->name)}, {"to", std::string(to.name)}};
  LWQ_ASSIGN_OR_RETURN(converted["config_sha256"],
                       Sha256HexOfFile(JoinPath(source, "config.json")));
  converted["rounded_scales"] = report.rounded_scales;
  const Json manifest = {{"lwq_manifest", 3},
                         {"files", std::move(files)},
                         {"plan", {{"weight_file_bytes", report.weight_bytes}}},
                         {"provenance", {{"converted", std::move(converted)}}}};
  const std::string text = absl::StrCat(manifest.dump(1), "\n");
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(directory, kManifest), text));
  report.files.push_back({kManifest, static_cast<int64_t>(text.size()), Sha256Hex(text)});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConvertedArtifact> ConvertArtifact(const std::string& source_directory,
                                                  const ArtifactFormatDef& to,
                                                  const std::string& directory,
                                                  const ConvertOptions& options) {
  LWQ_ASSIGN_OR_RETURN(Source source, OpenSource(source_directory));
  ConvertedArtifact report;
  report.from = IsGptqCoding(*source.coding) ? &ArtifactFormatDefs::gptq
                                             : &ArtifactFormatDefs::compressed_tensors;
  ModelInventory model = source.model;
  if (&to == &ArtifactFormatDefs::gguf) {
    LWQ_RETURN_IF_ERROR(DescribeForGguf(source_directory, &model));
  }
  LWQ_RETURN_IF_ERROR(to.check(model));
  model = PlannedAs(to, std::move(model));
  const std::string parent = Dirname(directory);
  LWQ_RETURN_IF_ERROR(MakeDirectories(parent));
  LWQ_ASSIGN_OR_RETURN(const TempDirectory scratch, TempDirectory::Create(parent));
  Blobs blobs;
  Encoder encoder(source, to, options, report);
  for (size_t u = 0; u < model.units.size(); ++u) {
    LWQ_RETURN_IF_ERROR(
        AddUnit(model.units[u], JoinPath(scratch.path(), absl::StrCat(u)), encoder, blobs, report));
  }
  const ArtifactPlan plan = {&model, &blobs.plan, source.checkpoint.get(), &blobs.set,
                             options.max_shard_bytes};
  const ContainerDef& container = ContainerOf(to);
  LWQ_ASSIGN_OR_RETURN(report.files, container.write(plan, directory, nullptr));
  LWQ_ASSIGN_OR_RETURN(const VerifyReport verified, container.verify(plan, directory));
  report.weight_bytes = verified.weight_bytes;
  LWQ_RETURN_IF_ERROR(ProveSameWeights(source, encoder.rounded(), source_directory, directory));
  LWQ_RETURN_IF_ERROR(WriteManifest(source_directory, directory, to, report));
  return report;
}

}  // namespace lwq
