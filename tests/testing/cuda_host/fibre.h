// A second stack that the host thread can change to and back.
#pragma once

#include <cstddef>
#include <functional>

namespace lwq::cuda_host {

class Fibre {
 public:
  Fibre();
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // `body` runs from its start at the next Resume. What ran before has ended.
  void Start(const std::function<void()>* body);
  // Goes on until the fibre calls Suspend or its body ends; true when it has ended.
  bool Resume();
  // From inside the fibre: back to who resumed it.
  void Suspend();

 private:
  friend void RunFibre();
  static constexpr size_t kStackBytes = 128 * 1024;

  void* const stack_;
  void* inside_ = nullptr;       // the stack pointer of the fibre while it is suspended
  void* outside_ = nullptr;      // that of who resumed it
  void* inside_fake_ = nullptr;  // what the address sanitizer keeps of each side
  void* outside_fake_ = nullptr;
  const void* outside_bottom_ = nullptr;
  size_t outside_bytes_ = 0;
  const std::function<void()>* body_ = nullptr;
  bool ended_ = true;
};

}  // namespace lwq::cuda_host
