// The module around libsentencepiece. Debian's library exports a protobuf 3.14 of its own; in one
// symbol scope with libprotobuf 3.21 one of the two meets the other's functions and the program
// ends before main. Loaded with a scope of its own, each finds its own.
#include <sentencepiece_processor.h>

#include <exception>

#include "worker/engine/tokenizer/sentencepiece/processor.h"

namespace lwq {
namespace {

class Processor : public SentencePieceProcessor {
 public:
  bool Load(const std::string& serialized, std::string* error) override {
    try {
      const auto status = impl_.LoadFromSerializedProto(serialized);
      if (status.ok()) return true;
      *error = status.ToString();
    } catch (const std::exception& e) {
      *error = e.what();
    }
    return false;
  }

  bool Encode(const std::string& text, std::vector<int>* ids, std::string* error) const override {
    try {
      const auto status = impl_.Encode(text, ids);
      if (status.ok()) return true;
      *error = status.ToString();
    } catch (const std::exception& e) {
      *error = e.what();
    }
    return false;
  }

  std::string Decode(const std::vector<int>& ids) const override {
    std::string text;
    try {
      if (impl_.Decode(ids, &text).ok()) return text;
    } catch (const std::exception&) {
    }
    return "";
  }

  int size() const override { return impl_.GetPieceSize(); }
  int unk_id() const override { return impl_.unk_id(); }
  int bos_id() const override { return impl_.bos_id(); }
  int eos_id() const override { return impl_.eos_id(); }
  std::string PieceOf(int id) const override { return impl_.IdToPiece(id); }
  int IdOf(const std::string& piece) const override {
    const int id = impl_.PieceToId(piece);
    return id >= 0 && PieceOf(id) == piece ? id : -1;
  }

 private:
  sentencepiece::SentencePieceProcessor impl_;
};

}  // namespace
}  // namespace lwq

lwq::SentencePieceProcessor* LwqNewSentencePieceProcessor() { return new lwq::Processor; }
