#include "scheduler.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define PB_POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define PB_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define PB_POISON(p, n) (void)0
#define PB_UNPOISON(p, n) (void)0
#endif
#ifdef PB_EMULATOR_TSAN
extern "C" {
void __tsan_acquire(void* p);
void __tsan_release(void* p);
}
#define PB_ACQUIRE(p) __tsan_acquire(p)
#define PB_RELEASE(p) __tsan_release(p)
#else
#define PB_ACQUIRE(p) (void)(p)
#define PB_RELEASE(p) (void)(p)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

namespace {

constexpr unsigned kWarp = 32, kMostThreads = 1024;
constexpr size_t kStaticShared = 48 << 10, kMostShared = 227 << 10, kGap = 64, kArena = 1 << 20;

enum class State : unsigned char { Fresh, Runnable, Barrier, Warp, Done };

// What a lane handed in, or gets.
struct Hand {
  Exchange kind;
  unsigned mask;
  uint64_t value;
  int source;
};
struct Thread {
  State state = State::Fresh;
  uint3 id{};
  Context* context = nullptr;
  const char* file = nullptr;  // of the last place where it waited
  unsigned line = 0;
  Hand hand{};
};
struct SharedArray {
  const SharedKey* key;
  char* memory;
};

struct Block {
  unsigned size = 0, waiting = 0, done = 0, barriers = 0;
  bool any = false, all = true;
  int count = 0, answer = 0;
  Vote vote = Vote::None;
  const char* file = nullptr;  // of the barrier at which threads wait
  unsigned line = 0;
  std::vector<Thread> threads;
  std::vector<unsigned> runnable;  // the next one is at `head`, or anywhere in a shuffle
  size_t head = 0;
  std::vector<SharedArray> shared;
  char* memory = nullptr;  // shared memory
  size_t used = 0, dynamic = 0;
};

Block block;
Thread* running;  // null outside of kernels
Context home;     // of the thread that launches
// Blocks take turns with two sets of stacks and of shared memory: otherwise the order in which they happen to run would
// hide from the race detector what two of them do to the same memory.
int side;
std::vector<Context*> spare[2], ended[2];
std::vector<std::unique_ptr<Context>> contexts[2];
const std::function<void()>* body;
Failure failure;
uint64_t random_state;
char* arenas;
thread_local bool launching;
// Note [Tokens]
// What ThreadSanitizer takes for order: a launch, the blocks before that used the same shared memory, a barrier. Two
// barriers in a row have different tokens, since a thread may reach the second before another has left the first.
char launch_token, end_token, begin_tokens[2], done_tokens[2], barrier_tokens[2][2];
char warp_tokens[2][kMostThreads / kWarp];

uint64_t random_below(uint64_t n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (random_state >> 33) % n;
}

template <class T>
void arrange(std::vector<T>& list, size_t from) {
  if (schedule().order == Order::Descending) std::reverse(list.begin() + long(from), list.end());
  if (schedule().order == Order::Shuffled)
    for (size_t i = list.size(); i > from + 1; i--) std::swap(list[i - 1], list[from + random_below(i - from)]);
}

unsigned index_of(const Thread& t) { return unsigned(&t - block.threads.data()); }

std::string short_name(const char* file) {
  std::string name = file;
  size_t slash = name.rfind('/');
  return slash == std::string::npos ? name : name.substr(slash + 1);
}
std::string place(const char* file, unsigned line) { return short_name(file) + ":" + std::to_string(line); }
std::string block_name() {
  return "block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
         std::to_string(blockIdx.z) + ")";
}

// Ends the kernel: this stack is given up.
[[noreturn]] void fail(const std::string& text) {
  failure = {cudaErrorLaunchFailure, text + ", in " + block_name()};
  Context& here = *running->context;
  running = nullptr;
  go(here, home);
  __builtin_unreachable();
}

// "threads 0 to 31 and 64 of 256"
std::string list_threads(const std::vector<unsigned>& which) {
  std::string text = which.size() == 1 ? "thread " : "threads ";
  int shown = 0;
  for (size_t i = 0; i < which.size();) {
    size_t j = i;
    while (j + 1 < which.size() && which[j + 1] == which[j] + 1) j++;
    if (shown++ == 4) return text + " ...";
    text += (i ? ", " : "") + std::to_string(which[i]) + (j > i ? " to " + std::to_string(which[j]) : "");
    i = j + 1;
  }
  return text;
}

// Nothing can go on: who waits where, and who has returned.
std::string deadlock() {
  struct Kind {
    State state;
    const char* file;
    unsigned line;
    std::vector<unsigned> threads;
  };
  std::vector<Kind> kinds;
  for (const Thread& t : block.threads) {
    auto same = [&](const Kind& k) { return k.state == t.state && k.file == t.file && k.line == t.line; };
    auto found = std::find_if(kinds.begin(), kinds.end(), same);
    if (found == kinds.end()) found = kinds.insert(kinds.end(), Kind{t.state, t.file, t.line, {}});
    found->threads.push_back(index_of(t));
  }
  bool early = block.done > 0 && block.waiting > 0 && block.waiting + block.done == block.size;
  std::string text = early ? "a thread returned before a barrier" : "deadlock";
  for (const Kind& k : kinds) {
    text += &k == kinds.data() ? ": " : "; ";
    text += list_threads(k.threads);
    if (k.state == State::Done)
      text += k.file ? " returned after " + place(k.file, k.line) : " returned without waiting anywhere";
    else
      text += (k.state == State::Warp ? " wait for lanes of the warp at " : " wait at the barrier of ") +
              place(k.file, k.line);
  }
  return text;
}

// The index of the next thread to go on; there is one.
unsigned take() {
  auto& list = block.runnable;
  if (schedule().order == Order::Shuffled)
    std::swap(list[block.head], list[block.head + random_below(list.size() - block.head)]);
  unsigned next = list[block.head++];
  if (block.head == list.size()) list.clear(), block.head = 0;
  return next;
}
bool more() { return block.head < block.runnable.size(); }

void begin(Thread& t) {
  running = &t;
  threadIdx = t.id;
  t.state = State::Runnable;
}

// A fiber: threads run on it one after the other, as long as the next one has not begun yet.
void fiber() {
  Context* here = running->context;
  arrived(*here);
  while (true) {
    Thread& t = *running;
    PB_ACQUIRE(&launch_token);
    PB_ACQUIRE(&begin_tokens[side]);
    (*body)();
    PB_RELEASE(&done_tokens[side]);
    PB_RELEASE(&end_token);
    t.state = State::Done;
    block.done++;
    t.context = nullptr;
#ifndef PB_EMULATOR_TSAN
    if (more() && block.threads[block.runnable[block.head]].state == State::Fresh &&
        schedule().order != Order::Shuffled) {
      Thread& next = block.threads[take()];
      next.context = here;
      begin(next);
      continue;
    }
#endif
    ended[side].push_back(here);
    running = nullptr;
    go(*here, home);
  }
}

// Gives way to other threads until this one is made runnable.
void wait(State state, const Place& at) {
  Thread& t = *running;
  t.state = state;
  t.file = at.file_name();
  t.line = at.line();
  running = nullptr;
  go(*t.context, home);
}

void open_barrier() {
  block.answer = block.vote == Vote::Any ? block.any : block.vote == Vote::All ? block.all : block.count;
  block.waiting = 0;
  block.barriers++;
  block.any = false, block.all = true, block.count = 0;
  block.file = nullptr;
  size_t from = block.runnable.size();
  for (Thread& t : block.threads) {
    if (t.state == State::Barrier) t.state = State::Runnable, block.runnable.push_back(index_of(t));
  }
  arrange(block.runnable, from);
}

// The answers of a complete round, written over the hands.
void answer_round(unsigned first, unsigned mask) {
  uint64_t value[kWarp] = {}, all = 0, bits = 0;
  Exchange kind = block.threads[first + unsigned(__builtin_ctz(mask))].hand.kind;
  bool begun = false;
  for (unsigned i = 0; i < kWarp; i++) {
    if (!(mask >> i & 1)) continue;
    uint64_t v = value[i] = block.threads[first + i].hand.value;
    bits |= uint64_t(v != 0) << i;
    all = !begun                  ? v
          : kind == Exchange::Add ? uint64_t(uint32_t(all + v))
          : kind == Exchange::Min ? std::min(all, v)
          : kind == Exchange::Max ? std::max(all, v)
          : kind == Exchange::And ? all & v
          : kind == Exchange::Or  ? all | v
                                  : all ^ v;
    begun = true;
  }
  for (unsigned i = 0; i < kWarp; i++) {
    if (!(mask >> i & 1)) continue;
    Hand& hand = block.threads[first + i].hand;
    if (kind == Exchange::Shuffle) {
      hand.value = value[hand.source & 31];
    } else if (kind == Exchange::Match) {
      uint64_t same = 0;
      for (unsigned j = 0; j < kWarp; j++) same |= uint64_t((mask >> j & 1) && value[j] == value[i]) << j;
      hand.value = same;
    } else {
      hand.value = kind == Exchange::Ballot ? bits : all;
    }
  }
  for (unsigned i = 0; i < kWarp; i++)
    if (mask >> i & 1) block.threads[first + i].hand.mask = 0;
}

void check_lane(unsigned other, const Thread& mine, unsigned mask, Exchange kind, const Place& at) {
  const Thread& t = block.threads[other];
  if (t.state == State::Done)
    fail("thread " + std::to_string(other) + " has returned, but the mask of a warp function at " +
         place(at.file_name(), at.line()) + " names it");
  if (t.state != State::Warp || t.hand.mask == 0) return;
  if (t.hand.mask != mask || t.hand.kind != kind || t.line != at.line())
    fail("lanes disagree: thread " + std::to_string(index_of(mine)) + " at " + place(at.file_name(), at.line()) +
         ", thread " + std::to_string(other) + " at " + place(t.file, t.line) +
         " wait for one another in different warp functions or with different masks");
}

// A loop that stays one: the race detector would take a call of memset for an access by the thread that runs.
void fill(char* p, size_t n) {
  for (volatile char *at = p, *end = p + n; at != end; at++) *at = char(0xff);
}

void check_guards() {
  for (size_t i = block.dynamic; block.dynamic && i < (block.dynamic + kGap - 1) / kGap * kGap + kGap; i++)
    if (block.memory[i] != char(0xff)) {
      failure = {cudaErrorLaunchFailure, "a write past the end of dynamic shared memory, in " + block_name()};
      return;
    }
  for (const SharedArray& a : block.shared) {
    const char* gap = a.memory + a.key->size;
    for (size_t i = 0; i < kGap; i++)
      if (gap[i] != char(0xff)) {
        failure = {cudaErrorLaunchFailure, std::string("a write past the end of the shared array ") + a.key->name +
                                               " of " + place(a.key->file, unsigned(a.key->line)) + ", in " +
                                               block_name()};
        return;
      }
  }
}

// To the race detector all threads of a fiber are one, so there a block's threads do not share fibers.
void give_back_contexts() {
  spare[side].insert(spare[side].end(), ended[side].begin(), ended[side].end());
  ended[side].clear();
}

void start_block(unsigned size, size_t dynamic) {
  block.size = size;
  block.waiting = block.done = block.barriers = 0;
  PB_ACQUIRE(&done_tokens[side]);
  PB_RELEASE(&begin_tokens[side]);
#ifdef PB_EMULATOR_TSAN
  give_back_contexts();
#endif
  block.any = false, block.all = true, block.count = 0;
  block.file = nullptr;
  block.head = 0;
  block.runnable.clear();
  block.shared.clear();
  block.threads.assign(size, Thread{});
  for (unsigned i = 0; i < size; i++) {
    block.threads[i].id = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    block.runnable.push_back(i);
  }
  arrange(block.runnable, 0);
  block.dynamic = dynamic;
  block.used = dynamic ? (dynamic + kGap - 1) / kGap * kGap + kGap : 0;
  PB_UNPOISON(block.memory, kArena);
  fill(block.memory, block.used);
  PB_POISON(block.memory + dynamic, kArena - dynamic);
}

void run_block() {
  while (failure.error == cudaSuccess && more()) {
    Thread& t = block.threads[take()];
    if (!t.context) {
#ifndef PB_EMULATOR_TSAN
      give_back_contexts();
#endif
      if (spare[side].empty()) {
        contexts[side].emplace_back(new_context(&fiber));
        spare[side].push_back(contexts[side].back().get());
      }
      t.context = spare[side].back();
      spare[side].pop_back();
    }
    begin(t);
    go(home, *t.context);
  }
  if (failure.error == cudaSuccess && block.done < block.size) {
    failure = {cudaErrorLaunchFailure, deadlock() + ", in " + block_name()};
  }
#if !defined(__SANITIZE_ADDRESS__)
  if (failure.error == cudaSuccess) check_guards();
#endif
  running = nullptr;
}

}  // namespace

Schedule& schedule() {
  static Schedule s;
  return s;
}

int barrier(Vote vote, bool mine, const Place& at) {
  if (block.file &&
      (block.line != at.line() || (block.file != at.file_name() && std::strcmp(block.file, at.file_name()) != 0) ||
       block.vote != vote))
    fail("divergent barrier: thread " + std::to_string(index_of(*running)) + " at " + place(at.file_name(), at.line()) +
         ", others wait at " + place(block.file, block.line));
  block.file = at.file_name();
  block.line = at.line();
  block.vote = vote;
  block.any |= mine, block.all &= mine, block.count += mine;
  char* token = &barrier_tokens[side][block.barriers % 2];
  PB_RELEASE(token);
  block.waiting++;
  Thread& t = *running;
  if (block.waiting == block.size) {
    t.state = State::Barrier;
    open_barrier();
    t.file = at.file_name(), t.line = at.line();
    running = nullptr;
    go(*t.context, home);
  } else {
    wait(State::Barrier, at);
  }
  PB_ACQUIRE(token);
  return block.answer;
}

unsigned lane() { return index_of(*running) % kWarp; }

unsigned active_lanes() {
  unsigned first = index_of(*running) / kWarp * kWarp, mask = 0;
  for (unsigned i = 0; i < kWarp && first + i < block.size; i++)
    mask |= unsigned(block.threads[first + i].state != State::Done) << i;
  return mask;
}

uint64_t exchange(Exchange kind, unsigned mask, uint64_t value, int source, const Place& at) {
  Thread& t = *running;
  unsigned mine = index_of(t) % kWarp, first = index_of(t) - mine;
  if (block.size - first < kWarp) mask &= (1u << (block.size - first)) - 1u;  // lanes that the block does not have
  if (!(mask >> mine & 1))
    fail("thread " + std::to_string(index_of(t)) + " calls a warp function at " + place(at.file_name(), at.line()) +
         " whose mask does not name it");
  if (kind == Exchange::Shuffle && !(mask >> (source & 31) & 1))
    fail("thread " + std::to_string(index_of(t)) + " shuffles at " + place(at.file_name(), at.line()) + " from lane " +
         std::to_string(source & 31) + ", which the mask does not name");
  bool complete = true;
  for (unsigned i = 0; i < kWarp; i++) {
    if (!(mask >> i & 1) || i == mine) continue;
    check_lane(first + i, t, mask, kind, at);
    complete &= block.threads[first + i].state == State::Warp && block.threads[first + i].hand.mask == mask;
  }
  t.hand = {kind, mask, value, source};
  if (kind == Exchange::Sync) PB_RELEASE(&warp_tokens[side][first / kWarp]);
  if (!complete) {
    wait(State::Warp, at);
  } else {
    t.file = at.file_name(), t.line = at.line();
    answer_round(first, mask);
    size_t from = block.runnable.size();
    for (unsigned i = 0; i < kWarp; i++) {
      if (!(mask >> i & 1) || i == mine) continue;
      block.threads[first + i].state = State::Runnable;
      block.runnable.push_back(first + i);
    }
    arrange(block.runnable, from);
  }
  if (kind == Exchange::Sync) PB_ACQUIRE(&warp_tokens[side][first / kWarp]);
  return t.hand.value;
}

void trap(const char* text, const Place& at) {
  fail(std::string(text) + ": thread " + std::to_string(index_of(*running)) + " at " +
       place(at.file_name(), at.line()));
}

void* shared(const SharedKey& key) {
  for (const SharedArray& a : block.shared)
    if (a.key == &key) return a.memory;
  size_t align = std::max(key.align, kGap), at = (block.used + align - 1) / align * align;
  size_t fixed = at - block.dynamic + key.size;
  if (fixed > kStaticShared + kGap * (block.shared.size() + 2) || at + key.size + kGap > kArena)
    fail(std::string("more than 48 KiB of static shared memory, at ") + key.name + " of " +
         place(key.file, unsigned(key.line)));
  char* memory = block.memory + at;
  block.used = at + key.size + kGap;
  PB_UNPOISON(memory, key.size + kGap);
  fill(memory, key.size + kGap);
  PB_POISON(memory + key.size, kGap);
  block.shared.push_back({&key, memory});
  return memory;
}

void* dynamic_shared(size_t) {
  if (!block.dynamic) fail("a kernel that uses dynamic shared memory was launched with none");
  return block.memory;
}

Failure run_grid(dim3 grid, dim3 block_shape, size_t dynamic, const std::function<void()>& call) {
  uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  uint64_t size = uint64_t(block_shape.x) * block_shape.y * block_shape.z;
  if (blocks == 0 || size == 0 || size > kMostThreads || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 ||
      block_shape.z > 64 || dynamic > kMostShared)
    return {cudaErrorInvalidConfiguration, "invalid configuration argument"};
  if (!arenas) arenas = static_cast<char*>(std::aligned_alloc(4096, 2 * kArena));
  failure = {};
  body = &call;
  blockDim = block_shape, gridDim = grid;
  random_state = schedule().seed * 2654435761u + blocks;
  adopt(home);
  PB_RELEASE(&launch_token);
  launching = true;
  std::vector<uint64_t> order;
  if (schedule().order == Order::Shuffled) {
    for (uint64_t i = 0; i < blocks; i++) order.push_back(i);
    arrange(order, 0);
  }
  for (uint64_t i = 0; i < blocks && failure.error == cudaSuccess; i++) {
    uint64_t b = schedule().order == Order::Ascending    ? i
                 : schedule().order == Order::Descending ? blocks - 1 - i
                                                         : order[i];
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    side = int(i % 2);
    block.memory = arenas + size_t(side) * kArena;
    start_block(unsigned(size), dynamic);
    run_block();
  }
  launching = false;
  PB_UNPOISON(arenas, 2 * kArena);
  PB_ACQUIRE(&end_token);
  if (failure.error != cudaSuccess) {  // stacks that were given up begin anew
    for (int s = 0; s < 2; s++) {
      spare[s].clear();
      ended[s].clear();
      for (auto& c : contexts[s]) {
        restart(*c, &fiber);
        spare[s].push_back(c.get());
      }
    }
  }
  return failure;
}

bool inside() { return launching && running; }

std::string whereabouts() {
  std::string text = "thread " + std::to_string(index_of(*running));
  if (running->file) text += " after " + place(running->file, running->line);
  return text + ", " + block_name();
}

bool broken(void* ucontext, Failure f) {
#if PB_EMULATOR_ASM && !defined(__SANITIZE_ADDRESS__) && !defined(PB_EMULATOR_TSAN)
  failure = std::move(f);
  running = nullptr;
  auto& registers = static_cast<ucontext_t*>(ucontext)->uc_mcontext.gregs;
  registers[REG_RSP] = reinterpret_cast<greg_t>(home.sp);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&pb_emulator_resume);
  return true;
#else
  return false;
#endif
}

}  // namespace emulator
