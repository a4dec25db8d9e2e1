// The blobs that a record needs: every BlobRef in it, at any depth.
#pragma once

#include "absl/functional/function_ref.h"
#include "google/protobuf/message.h"
#include "proto/lwq/v1/blob.pb.h"

namespace lwq {

void ForEachBlobRef(const google::protobuf::Message& message,
                    absl::FunctionRef<void(const v1::BlobRef&)> visit);

}  // namespace lwq
