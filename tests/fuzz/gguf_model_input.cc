#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/promise.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/io/stored_rows.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq::testing {
namespace {

constexpr int64_t kMaxText = 64 << 20;

// Whether the file's tokenizer was accepted and encodes. Its text has more than letters.
absl::StatusOr<bool> TryTokenizerOf(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(path);
  if (!tokenizer.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(tokenizer.status()));
    return false;
  }
  const absl::StatusOr<std::vector<int32_t>> ids =
      (*tokenizer)->Encode("The cat's 123\n\t  \xe4\xb8\xad\xf0\x9f\x98\x80 <s>", true);
  if (!ids.ok()) return Broken(absl::StrCat("not encoded: ", ids.status().ToString()));
  (void)(*tokenizer)->Decode(*ids);
  return true;
}

// Reads the first and the last row of each tensor of blocks.
absl::Status ReadRows(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.tensor_names()) {
    LWQ_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Get(name));
    const int64_t columns = view.shape.back(), rows = view.num_elements() / columns;
    if (!IsCoded(view) || columns > 1 << 16) continue;
    std::vector<float> row(static_cast<size_t>(columns));
    for (const int64_t at : {int64_t{0}, rows - 1}) {
      LWQ_RETURN_IF_ERROR(ReadCodedRows(checkpoint, name, at, MatrixView{row.data(), 1, columns}));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> TryGgufModel(absl::string_view input) {
  const std::string path = ScratchFile("model.gguf", input);
  LWQ_ASSIGN_OR_RETURN(const bool tokenizes, TryTokenizerOf(path));
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
  if (checkpoint.ok()) {
    const absl::Status read = ReadRows(**checkpoint);  // which may not be finite
    if (!read.ok()) LWQ_RETURN_IF_ERROR(ExpectTyped(read));
  } else {
    LWQ_RETURN_IF_ERROR(ExpectTyped(checkpoint.status()));
  }
  const absl::StatusOr<std::string> config = ReadModelFile(path, "config.json", kMaxText);
  if (!config.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(config.status()));
    return tokenizes;
  }
  const absl::StatusOr<DecoderSpec> spec = ParseDecoderSpec(*config);
  if (!spec.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(spec.status()));
    return tokenizes;
  }
  if (!checkpoint.ok()) return tokenizes;
  const absl::StatusOr<ModelInventory> inventory = TakeInventory(*spec, **checkpoint);
  if (!inventory.ok()) LWQ_RETURN_IF_ERROR(ExpectTyped(inventory.status()));
  return tokenizes || inventory.ok();
}

}  // namespace lwq::testing
