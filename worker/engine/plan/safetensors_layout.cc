// The writer's half of docs/formats/safetensors.md, without any data.
#include "worker/engine/plan/safetensors_layout.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace lwq {
namespace {

// JSON string with the escapes JSON requires; other bytes (UTF-8) go as they are.
std::string JsonString(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string HeaderJson(const SafetensorsLayout& layout) {
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}";
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const TensorSpec& tensor = layout.tensors[i];
    absl::StrAppend(&json, ",", JsonString(tensor.name), ":{\"dtype\":\"", NameOf(tensor.dtype),
                    "\",\"shape\":[", absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                    layout.offsets[i], ",", layout.offsets[i] + tensor.size_bytes(), "]}");
  }
  return json + "}";
}

std::string ShardName(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  return absl::StrFormat("model-%05d-of-%05d.safetensors", index + 1, count);
}

std::string IndexJson(const CheckpointLayout& checkpoint) {
  int64_t total_size = 0;
  std::vector<std::pair<std::string, const std::string*>> shard_of;
  for (const CheckpointLayout::File& file : checkpoint.files) {
    for (const TensorSpec& tensor : file.layout.tensors) {
      total_size += tensor.size_bytes();
      shard_of.emplace_back(tensor.name, &file.name);
    }
  }
  std::sort(shard_of.begin(), shard_of.end());
  std::string json = absl::StrCat("{\n  \"metadata\": {\n    \"total_size\": ", total_size,
                                  "\n  },\n  \"weight_map\": {");
  for (size_t i = 0; i < shard_of.size(); ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ",", "\n    ", JsonString(shard_of[i].first), ": \"",
                    *shard_of[i].second, "\"");
  }
  return json + "\n  }\n}\n";
}

}  // namespace

SafetensorsLayout LayOutSafetensors(std::vector<TensorSpec> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    const int order_a = InfoOf(a.dtype).order;
    const int order_b = InfoOf(b.dtype).order;
    return order_a != order_b ? order_a > order_b : a.name < b.name;
  });
  SafetensorsLayout layout;
  layout.tensors = std::move(tensors);
  int64_t offset = 0;
  for (const TensorSpec& tensor : layout.tensors) {
    layout.offsets.push_back(offset);
    offset += tensor.size_bytes();
  }
  std::string json = HeaderJson(layout);
  json.append((8 - json.size() % 8) % 8, ' ');
  for (int i = 0; i < 8; ++i) {
    layout.header.push_back(static_cast<char>((uint64_t{json.size()} >> (8 * i)) & 0xff));
  }
  layout.header += json;
  layout.file_bytes = static_cast<int64_t>(layout.header.size()) + offset;
  return layout;
}

// A shard's header grows with its tensors; laying the candidate out again for every group would
// cost the square of their number, so the header is bounded by the sum of its members' own lengths.
CheckpointLayout LayOutCheckpoint(const std::vector<std::vector<TensorSpec>>& groups,
                                  int64_t max_shard_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  int64_t shard_bytes = 0;
  // Length word, metadata, braces and padding; then two offsets of up to 20 digits a tensor beside
  // what the text of a file with that tensor alone has.
  constexpr int64_t kFixedBytes = 64;
  constexpr int64_t kOffsetBytes = 40;
  for (const std::vector<TensorSpec>& group : groups) {
    int64_t group_bytes = 0;
    for (const TensorSpec& tensor : group) {
      group_bytes += LayOutSafetensors({tensor}).file_bytes + kOffsetBytes;
    }
    const bool full = max_shard_bytes > 0 && !shards.back().empty() &&
                      kFixedBytes + shard_bytes + group_bytes > max_shard_bytes;
    if (full) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += group_bytes;
    shards.back().insert(shards.back().end(), group.begin(), group.end());
  }
  CheckpointLayout checkpoint;
  for (size_t i = 0; i < shards.size(); ++i) {
    SafetensorsLayout layout = LayOutSafetensors(std::move(shards[i]));
    checkpoint.weight_bytes += layout.file_bytes;
    checkpoint.files.push_back({ShardName(i, shards.size()), std::move(layout)});
  }
  if (checkpoint.files.size() > 1) checkpoint.index_json = IndexJson(checkpoint);
  return checkpoint;
}

}  // namespace lwq
