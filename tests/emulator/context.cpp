#include "context.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef PB_EMULATOR_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}
#endif

#if PB_EMULATOR_ASM
// The registers that a call must keep go to the old stack and come from the new one.
asm(R"(
.text
.hidden pb_emulator_switch
.globl pb_emulator_switch
.type pb_emulator_switch, @function
pb_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
.hidden pb_emulator_resume
.globl pb_emulator_resume
pb_emulator_resume:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pb_emulator_switch, .-pb_emulator_switch
)");
extern "C" void pb_emulator_switch(void** save, void* load);
#endif

namespace emulator {

namespace {
#if defined(__SANITIZE_ADDRESS__) || defined(PB_EMULATOR_TSAN)
constexpr size_t kStack = 512 << 10;
#else
constexpr size_t kStack = 128 << 10;
#endif
}  // namespace

Context* new_context(void (*entry)()) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  void* memory =
      mmap(nullptr, kStack + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, page, PROT_NONE);
  auto* c = new Context;
  c->stack = static_cast<char*>(memory) + page;
  c->size = kStack;
#ifdef PB_EMULATOR_TSAN
  c->tsan = __tsan_create_fiber(0);
#endif
  restart(*c, entry);
  return c;
}

void restart(Context& c, void (*entry)()) {
#if PB_EMULATOR_ASM
  auto** sp = reinterpret_cast<void**>(c.stack + c.size);
  *--sp = nullptr;  // the return address that an entry never uses; keeps the stack aligned
  *--sp = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  c.sp = sp;
#else
  getcontext(&c.saved);
  c.saved.uc_stack.ss_sp = c.stack;
  c.saved.uc_stack.ss_size = c.size;
  c.saved.uc_link = nullptr;
  makecontext(&c.saved, entry, 0);
#endif
  c.fake_stack = nullptr;
}

void go(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
#endif
#ifdef PB_EMULATOR_TSAN
  __tsan_switch_to_fiber(to.tsan, 1);  // 1: a switch orders nothing
#endif
#if PB_EMULATOR_ASM
  pb_emulator_switch(&from.sp, to.sp);
#else
  swapcontext(&from.saved, &to.saved);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void arrived(Context& here) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(here.fake_stack, nullptr, nullptr);
#endif
  (void)here;
}

void adopt(Context& here) {
#ifdef PB_EMULATOR_TSAN
  here.tsan = __tsan_get_current_fiber();
#endif
#if defined(__SANITIZE_ADDRESS__)
  pthread_attr_t attributes;
  void* bottom = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &here.size);
  pthread_attr_destroy(&attributes);
  here.stack = static_cast<char*>(bottom);
#endif
  (void)here;
}

}  // namespace emulator
