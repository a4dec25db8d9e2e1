// The config.json of the model in a GGUF file, from its keys and the shapes of its tensors: what
// lwq reads the model by, and what artifacts of other formats take along. docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/gguf/gguf_family.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/tensor/dtype.h"

namespace lwq {

// Of a layer. A file may claim any number.
constexpr int64_t kMostGgufExperts = 4096;

// By general.architecture, and whether there are experts. UNIMPLEMENTED "ARCH_UNSUPPORTED";
// DATA_LOSS "GGUF_METADATA" where the key is missing.
absl::StatusOr<const GgufFamilyDef*> GgufFamilyOf(const GgufMetadata& metadata);

// What the weights of linears and embeddings are read as: the type that all of them are stored in,
// where that is F32, F16 or BF16; F32 where they are in blocks or of several types.
DType GgufReadAs(const GgufHeader& header);
// What such a weight is kept as where it stays dense in an artifact of another format, and the type
// that config.json names. That which it is read as, but where there are blocks: then a type of 16
// bits, F32 being twice the bytes and more than they have to say. It is F16 where one weight is
// stored so, else BF16, whose range no block leaves; F32 where one weight is F32 or both of the
// others occur.
DType GgufKeptAs(const GgufHeader& header);

// Errors: those of GgufFamilyOf; DATA_LOSS "GGUF_METADATA" for a key that is missing, out of range
// or of another type; UNIMPLEMENTED "GGUF_UNSUPPORTED" for what the family's config.json cannot
// say.
absl::StatusOr<std::string> GgufConfigJson(const GgufFile& file);

}  // namespace lwq
