// The memory of the GPU on the host: a range of addresses that the host cannot touch except while
// the device runs, and the allocations in it, each between guards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lwq::cuda_host {

class Arena {
 public:
  Arena();

  // Memory whose contents nobody may use yet; null when there is none left. See Begin.
  void* Reserve(size_t bytes);
  // From here on `data` may be used; filled with NaNs. The arena is open.
  void Begin(void* data);
  // `data` is free for others; "" or what was wrong with it. The arena is open.
  std::string End(void* data);

  void Open();   // the device runs
  void Close();  // the host runs

  // "" when [data, data + bytes) may be used now, else why not.
  std::string Objection(const void* data, size_t bytes) const;
  // "" when no guard was overwritten. The arena is open.
  std::string BrokenGuard() const;

  size_t bytes_in_use() const { return bytes_in_use_; }
  void set_capacity(size_t bytes) { capacity_ = bytes; }
  size_t capacity() const { return capacity_; }

 private:
  static constexpr size_t kReserved = size_t{8} << 30;
  static constexpr size_t kGuard = 256;
  static constexpr size_t kAlignment = 256;
  static constexpr uint8_t kGuardByte = 0xa5;
  static constexpr uint8_t kFreshByte = 0xff;  // a NaN in every float
  static constexpr uint8_t kFreedByte = 0xfe;  // likewise

  struct Block {
    size_t bytes;  // that were asked for
    bool usable;
  };

  static size_t Footprint(size_t bytes) {
    return kGuard + (bytes + kAlignment - 1) / kAlignment * kAlignment + kGuard;
  }

  uint8_t* base_;
  size_t next_ = 0;
  size_t capacity_ = size_t{4} << 30;
  size_t bytes_in_use_ = 0;
  std::map<const uint8_t*, Block> blocks_;            // by first byte
  std::map<size_t, std::vector<uint8_t*>> returned_;  // by footprint
};

}  // namespace lwq::cuda_host
