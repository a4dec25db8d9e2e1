// See sentencepiece_model.h. Nothing of Abseil may be included here.
#include "worker/engine/tokenizer/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <exception>

namespace lwq {

struct SentencePieceModel::Processor {
  sentencepiece::SentencePieceProcessor impl;
};

SentencePieceModel::SentencePieceModel() : processor_(std::make_unique<Processor>()) {}
SentencePieceModel::~SentencePieceModel() = default;

bool SentencePieceModel::Load(const std::string& serialized, std::string* error) {
  try {
    const auto status = processor_->impl.LoadFromSerializedProto(serialized);
    if (status.ok()) return true;
    *error = status.ToString();
  } catch (const std::exception& e) {
    *error = e.what();
  }
  return false;
}

bool SentencePieceModel::Encode(const std::string& text, std::vector<int>* ids,
                                std::string* error) const {
  try {
    const auto status = processor_->impl.Encode(text, ids);
    if (status.ok()) return true;
    *error = status.ToString();
  } catch (const std::exception& e) {
    *error = e.what();
  }
  return false;
}

std::string SentencePieceModel::Decode(const std::vector<int>& ids) const {
  std::string text;
  try {
    if (processor_->impl.Decode(ids, &text).ok()) return text;
  } catch (const std::exception&) {
  }
  return "";
}

int SentencePieceModel::size() const { return processor_->impl.GetPieceSize(); }
int SentencePieceModel::unk_id() const { return processor_->impl.unk_id(); }
int SentencePieceModel::bos_id() const { return processor_->impl.bos_id(); }
int SentencePieceModel::eos_id() const { return processor_->impl.eos_id(); }
std::string SentencePieceModel::PieceOf(int id) const { return processor_->impl.IdToPiece(id); }

int SentencePieceModel::IdOf(const std::string& piece) const {
  const int id = processor_->impl.PieceToId(piece);
  return id >= 0 && PieceOf(id) == piece ? id : -1;
}

}  // namespace lwq
