#include "server/store/blob_refs.h"

#include <vector>

#include "google/protobuf/descriptor.h"

namespace lwq {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void ForEachBlobRef(const Message& message, absl::FunctionRef<void(const v1::BlobRef&)> visit) {
  if (message.GetDescriptor() == v1::BlobRef::descriptor()) {
    visit(static_cast<const v1::BlobRef&>(message));
    return;
  }
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      ForEachBlobRef(reflection.GetMessage(message, field), visit);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      ForEachBlobRef(reflection.GetRepeatedMessage(message, field, i), visit);
    }
  }
}

}  // namespace lwq
