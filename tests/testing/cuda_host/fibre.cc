#include "tests/testing/cuda_host/fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "fibre.cc changes stacks in x86-64's way only; add this processor's"
#endif

// Saves the registers that a callee keeps, leaves the stack pointer in *save and goes on where
// `load` was left. swapcontext does the same with a system call each time.
extern "C" void lwq_change_stacks(void** save, void* load);
asm(R"(
.text
.globl lwq_change_stacks
.hidden lwq_change_stacks
.type lwq_change_stacks, @function
lwq_change_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lwq_change_stacks, .-lwq_change_stacks
)");

namespace lwq::cuda_host {
namespace {

Fibre* starting = nullptr;

void BeginChange([[maybe_unused]] void** fake, [[maybe_unused]] const void* bottom,
                 [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, bottom, bytes);
#endif
}
void EndChange([[maybe_unused]] void* fake, [[maybe_unused]] const void** bottom,
               [[maybe_unused]] size_t* bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, bottom, bytes);
#endif
}

}  // namespace

// The first frame of a fibre: it never returns, since there is nothing below it.
void RunFibre() {
  Fibre* self = starting;
  EndChange(nullptr, &self->outside_bottom_, &self->outside_bytes_);
  (*self->body_)();
  self->ended_ = true;
  BeginChange(nullptr, self->outside_bottom_, self->outside_bytes_);
  lwq_change_stacks(&self->inside_, self->outside_);
  std::abort();
}

Fibre::Fibre()
    : stack_(
          mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
  if (stack_ == MAP_FAILED) std::abort();
}
Fibre::~Fibre() { munmap(stack_, kStackBytes); }

void Fibre::Start(const std::function<void()>* body) {
  body_ = body;
  ended_ = false;
  // As if RunFibre had been called from nowhere: its return address, then what lwq_change_stacks
  // pops.
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&RunFibre);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  inside_ = top;
}

bool Fibre::Resume() {
  starting = this;
  BeginChange(&outside_fake_, stack_, kStackBytes);
  lwq_change_stacks(&outside_, inside_);
  EndChange(outside_fake_, nullptr, nullptr);
  return ended_;
}

void Fibre::Suspend() {
  BeginChange(&inside_fake_, outside_bottom_, outside_bytes_);
  lwq_change_stacks(&inside_, outside_);
  EndChange(inside_fake_, &outside_bottom_, &outside_bytes_);
}

}  // namespace lwq::cuda_host
