// Switching between stacks: 20 lines of assembly on x86-64, ucontext elsewhere. The sanitizers are told of each switch.
#pragma once
#include <ucontext.h>

#include <cstddef>
#if !defined(__x86_64__) || defined(PB_EMULATOR_UCONTEXT)
#define PB_EMULATOR_ASM 0
#else
#define PB_EMULATOR_ASM 1
#endif

namespace emulator {

// A stack on which code runs, or waits to be gone on with.
struct Context {
  char* stack = nullptr;
  size_t size = 0;
  void* sp = nullptr;
#if !PB_EMULATOR_ASM
  ucontext_t saved;
#endif
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;        // ThreadSanitizer's fiber
};

// A stack with a guard page below it. `entry` never returns.
Context* new_context(void (*entry)());
// Lets a context whose work was given up begin anew at `entry`.
void restart(Context& c, void (*entry)());
// Goes on with `to`; returns when something goes on with `from`.
void go(Context& from, Context& to);
// To be called first by an entry.
void arrived(Context& here);
// For the context of the operating system's thread, before the first switch away.
void adopt(Context& here);

#if PB_EMULATOR_ASM
// Where a signal handler may lead a thread whose stack pointer it sets to a context's `sp`.
extern "C" void pb_emulator_resume();
#endif

}  // namespace emulator
