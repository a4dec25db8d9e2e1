// One layer of a decoder as data: its linears and what each reads, norms, attention, the units that
// formats are chosen for, and the places where a scale may move from one tensor to the next. A
// family fills it in; decoder, inventory, calibration, scoring, quantizing and layout go over it.
// What refers to another entry of the layer does so by its index there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// What the decoder does with a norm. kPostAttention and kPostMlp: of what comes out of the two,
// before it is added.
enum class NormRole { kAttention, kPostAttention, kMlp, kPostMlp, kQuery, kKey, kFinal };

// A rotary embedding; rope.h computes it.
enum class RopeType { kDefault, kLinear, kDynamic, kLlama3, kYarn, kLongRope };
struct RopeSpec {
  RopeType type = RopeType::kDefault;
  double theta = 10000;
  int rotated = 0;  // the first so many values of a head; 0: all
  double factor = 1;
  double attention_factor = 1;         // of cosine and sine
  int64_t original_max_positions = 0;  // all but default and linear: what was trained with at first
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  bool truncate = true;                              // yarn
  std::vector<double> short_factor, long_factor;     // longrope, by pair

  friend bool operator==(const RopeSpec&, const RopeSpec&) = default;
};

struct AttentionSpec {
  RopeSpec rope;
  int64_t sliding_window = 0;  // 0: none
};

// What some linears read. They share its statistics.
struct InputSpec {
  std::string name;  // "mlp_hidden"; part of the names of stored statistics: never rename
  int64_t features = 0;
  bool routed = false;  // an expert's: only of the tokens that go to it
  // Of a routed one, where all tokens make the same of it: that input, of LayerSpec::inputs.
  std::optional<size_t> pooled = std::nullopt;
};

struct LinearSpec {
  LinearShape shape;  // with its role
  size_t input = 0;   // of LayerSpec::inputs; shape.input is its name
  size_t unit = 0;    // of LayerSpec::units
  bool bias = false;
  std::optional<int> expert;  // set for an expert's own linear

  std::string weight_name() const { return shape.module + ".weight"; }
  std::string bias_name() const { return shape.module + ".bias"; }
};

struct NormSpec {
  std::string tensor;
  int64_t size = 0;
  NormRole role = NormRole::kAttention;
};

// Linears that must share one format (AllocationUnit).
struct UnitSpec {
  std::string name;  // "layers.3.self_attn.qkv_proj"
  std::string kind;  // "self_attn.qkv_proj"
};

// What a norm or a linear puts out may be divided, channel by channel, by any positive scales when
// all that reads it is multiplied by them: the layer computes what it did. (A norm's weight has the
// model's norm_offset in it when it is divided.)
struct ScaleEdge {
  enum class Source { kNorm, kLinear };
  Source source = Source::kNorm;
  size_t index = 0;  // of LayerSpec::norms, or of ::linears: then its rows and bias divide
  std::vector<size_t> readers;  // all linears that read it: their columns multiply
  // Readers may see each block of channels several times over: with grouped queries the output
  // projection reads the values of one key-value head `repeats` times.
  int64_t block = 0;  // channels
  int64_t repeats = 1;

  // The source's channel that a reader's column reads.
  int64_t ChannelOf(int64_t column) const {
    return column / (block * repeats) * block + column % block;
  }
};

// A mixture of experts in place of the MLP: of the experts' linears, each token goes through those
// of the few that a router chooses for it, and their answers are added by their shares. A layer may
// have a shared expert beside them, which all tokens go through: its linears are no expert's.
struct ExpertsSpec {
  int num_experts = 0;
  int per_token = 0;
  size_t input = 0;        // of LayerSpec::inputs: what the router reads, of all tokens
  bool normalized = true;  // the shares of the chosen are divided by their sum
  std::string router;      // [num_experts, hidden], dense: its logits choose
  std::string shared_gate;  // [1, hidden], dense: how much of the shared expert; may be empty
};

struct LayerSpec {
  std::vector<InputSpec> inputs;
  std::vector<LinearSpec> linears;  // by unit, in the order they are stored
  std::vector<NormSpec> norms;
  std::vector<UnitSpec> units;
  std::vector<ScaleEdge> edges;
  AttentionSpec attention;
  std::optional<ExpertsSpec> experts;

  // The linear of the role that is no expert's; the linear of the module; the norm of the role.
  std::optional<size_t> FindLinear(LinearRole role) const;
  std::optional<size_t> FindExpert(int expert, LinearRole role) const;
  std::optional<size_t> FindLinear(const std::string& module) const;
  std::optional<size_t> FindNorm(NormRole role) const;
};

// The token embedding, [vocabulary, hidden].
struct EmbeddingSpec {
  std::string tensor;
  double scale = 1;  // of what it puts out
  // As a layer of one linear, for what formats are chosen for: its input is the head's where the
  // two are tied, else none that would tell one column from another.
  LayerSpec layer;
};

// What turns the last hidden states into logits: as a layer of one norm, one input and one linear.
struct HeadSpec {
  LayerSpec layer;
  // The weight is the embedding's: no unit, and a stored copy under the linear's name is redundant.
  bool tied = false;

  const NormSpec& norm() const { return layer.norms.front(); }
  const LinearSpec& linear() const { return layer.linears.front(); }
};

}  // namespace lwq
