#include "worker/engine/tokenizer/sentencepiece_model.h"

#include <dlfcn.h>
#include <unistd.h>

#include <climits>

namespace lwq {
namespace {

using Maker = SentencePieceProcessor* (*)();

// The folder of the running program, with its slash; the module lies there.
std::string ProgramFolder() {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof(path));
  const std::string program(path, length > 0 ? static_cast<size_t>(length) : 0);
  return program.substr(0, program.rfind('/') + 1);
}

Maker LoadModule(std::string* error) {
  int flags = RTLD_NOW | RTLD_LOCAL;
#ifndef LWQ_SANITIZED
  flags |= RTLD_DEEPBIND;  // which the sanitizers' run times refuse
#endif
  void* module = ::dlopen((ProgramFolder() + "lwq-sentencepiece.so").c_str(), flags);
  void* symbol = module != nullptr ? ::dlsym(module, "LwqNewSentencePieceProcessor") : nullptr;
  if (symbol == nullptr) *error = ::dlerror();
  return reinterpret_cast<Maker>(symbol);
}

struct Module {
  Module() : make(LoadModule(&error)) {}
  std::string error;
  Maker make;
};

}  // namespace

bool SentencePieceModel::Load(const std::string& serialized, std::string* error) {
  static const Module* const module = new Module;  // never unloaded
  if (module->make == nullptr) {
    *error = "the module for tokenizer.model cannot be loaded: " + module->error;
    return false;
  }
  processor_.reset(module->make());
  return processor_->Load(serialized, error);
}

}  // namespace lwq
