// CUDA C++ on a CPU: a block's threads run as fibers, one block after another.
//
// A thread runs until it ends or waits at a barrier, then the next one of its warp runs, and a warp runs as far as it
// goes before the next one does, in ascending or descending order of threadIdx. A result that depends on this order
// differs between the two, as where a barrier is missing. Shared memory is filled with NaN before each block. Threads
// that wait for each other in vain are reported.
// x86-64 only. Not covered: partial shuffle masks, dynamic shared memory, textures, tensor cores, races between
// blocks.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <type_traits>
#include <utility>

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))

extern char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));

struct dim3 {
    unsigned x, y, z;
};

namespace cpu {

enum State { FREE, RUNNING, AT_BLOCK_BARRIER, AT_WARP_BARRIER };

struct Fiber {
    void* stack_pointer;
    char* stack;
    unsigned thread;  // of the block, flat
    unsigned generation;  // of the barrier that it waits for
    State state;
};

struct Warp {
    unsigned alive, waiting, generation, slots;
    uint64_t value[2][32];  // what lanes exchange; two sets, so that one barrier an exchange is enough
};

static const unsigned MOST_THREADS = 1024;
static const size_t STACK_BYTES = 64 << 10;

static dim3 grid, block, block_index, thread_index;
static unsigned num_threads, next_thread, alive, waiting, generation, lane, warp;
static bool descending;
static Fiber fibers[MOST_THREADS];
static Fiber* running;
static Warp warps[MOST_THREADS / 32];
static void* scheduler;
static void (*run_thread)(void*);
static void* kernel_call;
static char error[200];

// Saves the callee's registers on the present stack, keeps that stack in *from, goes on with `to`.
extern "C" void cpu_switch_stack(void** from, void* to);
__asm__(
    ".text\n.local cpu_switch_stack\n.type cpu_switch_stack,@function\ncpu_switch_stack:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size cpu_switch_stack,.-cpu_switch_stack\n");

static void become(unsigned thread) {
    lane = thread % 32;
    warp = thread / 32;
    thread_index = {thread % block.x, thread / block.x % block.y, thread / block.x / block.y};
}

static void wait_as(State state, unsigned barrier) {
    running->state = state;
    running->generation = barrier;
    cpu_switch_stack(&running->stack_pointer, scheduler);
}

static void block_barrier() {
    unsigned mine = generation;
    if (++waiting == alive) {
        waiting = 0;
        ++generation;
    } else {
        while (generation == mine) wait_as(AT_BLOCK_BARRIER, mine);
    }
}

static void open_warp(Warp& w) {
    w.waiting = 0;
    ++w.generation;
    w.slots ^= 1;
}

static void warp_barrier() {
    Warp& w = warps[warp];
    unsigned mine = w.generation;
    if (++w.waiting == w.alive) {
        open_warp(w);
    } else {
        while (w.generation == mine) wait_as(AT_WARP_BARRIER, mine);
    }
}

static void leave() {  // a thread that has ended no longer keeps the others waiting
    Warp& w = warps[warp];
    --alive;
    --w.alive;
    if (alive && waiting == alive) {
        waiting = 0;
        ++generation;
    }
    if (w.alive && w.waiting == w.alive) open_warp(w);
}

extern "C" __attribute__((used)) inline void cpu_fiber_main() {  // one thread after another, until one waits
    for (;;) {
        while (next_thread < num_threads) {
            unsigned i = next_thread++;
            running->thread = descending ? num_threads - 1 - i : i;
            become(running->thread);
            run_thread(kernel_call);
            leave();
        }
        running->state = FREE;
        cpu_switch_stack(&running->stack_pointer, scheduler);
    }
}

static void prepare(Fiber& fiber) {
    if (!fiber.stack) {
        void* room = mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        fiber.stack = (char*)room;
    }
    void** top = (void**)(fiber.stack + STACK_BYTES - 16);
    *--top = 0;
    *--top = (void*)cpu_fiber_main;  // where the first switch returns to
    for (int i = 0; i < 6; i++) *--top = 0;
    fiber.stack_pointer = top;
    fiber.state = RUNNING;
    fiber.thread = MOST_THREADS;
}

static void resume(Fiber& fiber) {
    running = &fiber;
    if (fiber.thread < MOST_THREADS) become(fiber.thread);
    cpu_switch_stack(&scheduler, fiber.stack_pointer);
}

static bool is_stuck(const Fiber& fiber) {
    if (fiber.state == AT_BLOCK_BARRIER) return generation == fiber.generation;
    return warps[fiber.thread / 32].generation == fiber.generation;
}

static Fiber& in_order(unsigned i, unsigned used) { return fibers[descending ? used - 1 - i : i]; }

// One warp as far as it goes: it may be ahead of the others by all that lies between two barriers of the block.
static bool run_warp(unsigned first, unsigned last, unsigned used) {
    bool moved = false, again = true;
    while (again) {
        again = false;
        for (unsigned i = first; i < last; i++) {
            Fiber& fiber = in_order(i, used);
            if (fiber.state == FREE || is_stuck(fiber)) continue;
            again = moved = true;
            resume(fiber);
        }
    }
    return moved;
}

static bool run_block() {
    memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
    alive = num_threads;
    waiting = next_thread = 0;
    for (unsigned w = 0; w * 32 < num_threads; w++) {
        warps[w].alive = num_threads - w * 32 < 32 ? num_threads - w * 32 : 32;
        warps[w].waiting = 0;
    }
    unsigned used = 0;
    while (next_thread < num_threads) {
        prepare(fibers[used]);
        resume(fibers[used++]);
    }
    while (alive) {
        bool moved = false;
        for (unsigned first = 0, last; first < used; first = last) {
            for (last = first; last < used && in_order(last, used).thread / 32 == in_order(first, used).thread / 32;)
                last++;
            moved |= run_warp(first, last, used);
        }
        if (!moved) {
            snprintf(
                error, sizeof error, "block (%u, %u, %u) is stuck: %u of %u threads wait at __syncthreads",
                block_index.x, block_index.y, block_index.z, waiting, alive);
            return false;
        }
    }
    return true;
}

template <class T>
static T exchange(T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    Warp& w = warps[warp];
    unsigned set = w.slots;
    unsigned mine = lane;
    memcpy(&w.value[set][mine], &value, sizeof(T));
    warp_barrier();
    T got;
    memcpy(&got, &w.value[set][source < 32 ? source : mine], sizeof(T));
    return got;
}

template <class... Args, size_t... I>
static void apply(void (*kernel)(Args...), void** args, std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<Args>*)args[I]...);
}

template <class... Args>
static int launch(void (*kernel)(Args...), const unsigned* g, const unsigned* b, void** args, int order) {
    struct Call {
        void (*kernel)(Args...);
        void** args;
    } call{kernel, args};
    grid = {g[0], g[1], g[2]};
    block = {b[0], b[1], b[2]};
    num_threads = b[0] * b[1] * b[2];
    descending = order != 0;
    if (num_threads < 1 || num_threads > MOST_THREADS || b[2] > 64) {
        snprintf(error, sizeof error, "a block cannot have %u x %u x %u threads", b[0], b[1], b[2]);
        return 1;
    }
    if (g[0] < 1 || g[0] > 0x7fffffffu || g[1] < 1 || g[1] > 65535 || g[2] < 1 || g[2] > 65535) {
        snprintf(error, sizeof error, "a grid cannot have %u x %u x %u blocks", g[0], g[1], g[2]);
        return 1;
    }
    kernel_call = &call;
    run_thread = [](void* p) {
        Call* c = (Call*)p;
        apply(c->kernel, c->args, std::index_sequence_for<Args...>{});
    };
    for (block_index.z = 0; block_index.z < grid.z; block_index.z++)
        for (block_index.y = 0; block_index.y < grid.y; block_index.y++)
            for (block_index.x = 0; block_index.x < grid.x; block_index.x++)
                if (!run_block()) return 1;
    return 0;
}

// One letter a parameter: what its argument must be.
template <class T>
constexpr char kind() {
    if (std::is_pointer_v<T>) return std::is_const_v<std::remove_pointer_t<T>> ? 'r' : 'w';
    if (std::is_floating_point_v<T>) return sizeof(T) == 4 ? 'f' : 'd';
    if (std::is_integral_v<T>) return sizeof(T) == 8 ? 'q' : sizeof(T) == 4 ? 'i' : sizeof(T) == 1 ? 'b' : '?';
    return sizeof(T) == 2 ? 'h' : '?';  // a number of 16 bits
}

template <class T>
constexpr char element() {
    using E = std::remove_cv_t<std::remove_pointer_t<T>>;
    return std::is_pointer_v<T> ? kind<E>() : '-';
}

template <class... Args>
static const char* parameters(void (*)(Args...)) {
    static const char text[] = {kind<Args>()..., ' ', element<Args>()..., 0};
    return text;
}

}  // namespace cpu

#define threadIdx (cpu::thread_index)
#define blockIdx (cpu::block_index)
#define blockDim (cpu::block)
#define gridDim (cpu::grid)

static inline void __syncthreads() { cpu::block_barrier(); }
static inline void __syncwarp(unsigned = ~0u) { cpu::warp_barrier(); }
template <class T>
static inline T __shfl_sync(unsigned, T value, int source) {
    return cpu::exchange(value, source & 31);
}
template <class T>
static inline T __shfl_down_sync(unsigned, T value, unsigned distance) {
    return cpu::exchange(value, cpu::lane + distance);
}
template <class T>
static inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return cpu::exchange(value, cpu::lane ^ mask);
}
static inline int atomicAdd(int* place, int value) {
    int before = *place;
    *place = before + value;
    return before;
}
static inline int atomicMax(int* place, int value) {
    int before = *place;
    if (value > before) *place = value;
    return before;
}
template <class T>
static inline T __ldg(const T* place) {
    return *place;
}
template <class A, class B>
static inline std::common_type_t<A, B> max(A a, B b) {
    return a > b ? a : b;
}
template <class A, class B>
static inline std::common_type_t<A, B> min(A a, B b) {
    return a < b ? a : b;
}
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

extern "C" __attribute__((used)) inline const char* cpu_error() { return cpu::error; }

#define CPU_EXPORT(name)                                                                                    \
    extern "C" int run_##name(const unsigned* g, const unsigned* b, void** args, int order) {                \
        return cpu::launch(name, g, b, args, order);                                                         \
    }                                                                                                        \
    extern "C" const char* parameters_of_##name() { return cpu::parameters(name); }
