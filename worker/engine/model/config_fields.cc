#include "worker/engine/model/config_fields.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"

namespace lwq {
namespace {

constexpr absl::string_view kHarmless[] = {
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "attn_dropout_prob",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "base_model_tp_plan",
    "begin_suppress_tokens",
    "bos_token",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "cls_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "emb_dropout_prob",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "license",
    "max_length",
    "max_new_tokens",
    "max_seq_len",
    "max_sequence_length",
    "min_length",
    "model_max_length",
    "model_type",
    "name_or_path",
    "neftune_noise_alpha",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "quantization_config",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "sep_token_id",
    "seq_length",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_flash_attention",
    "use_flash_attention_2",
    "use_flash_attn",
    "use_return_dict",
};

}  // namespace

bool IsHarmlessField(absl::string_view field) {
  // What begins with a "_" transformers keeps for itself.
  return absl::StartsWith(field, "_") ||
         std::find(std::begin(kHarmless), std::end(kHarmless), field) != std::end(kHarmless);
}

}  // namespace lwq
