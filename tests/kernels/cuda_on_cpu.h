// Enough of CUDA for a kernel of suite/kernels to run on a CPU, compiled as C++:
//
//     g++ -std=c++20 -O1 -shared -fPIC -DCUDA_ON_CPU -include cuda_on_cpu.h -x c++ kernel.cu launchers.cpp
//
// Every CUDA thread is a fiber of one thread: it runs until a barrier, a warp's collective or cuda_on_cpu::yield().
// So nothing is timed and no race is random, and a forgotten barrier shows, as threads run far apart, in the order of
// their numbers or (CUDA_ON_CPU_REVERSED in the environment) against it. A deadlock ends the process with a message.
//
// A cooperative grid's blocks are all alive at once and must take their shared memory by DYNAMIC_SHARED(name); other
// grids run a block after the other, so that "__shared__" is simply "static". Grids and blocks have one dimension.
// A kernel's own PTX goes into functions inside #ifndef CUDA_ON_CPU, with C++ ones beside them.

#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define DYNAMIC_SHARED(name) unsigned char* name = cuda_on_cpu::current->block->shared.data()

struct uint3 { unsigned x, y, z; };
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_on_cpu {

struct Barrier {
    int members = 0, arrived = 0;
    unsigned phase = 0;
    void check() {
        if (arrived >= members) arrived = 0, ++phase;
    }
};

struct Warp {
    Barrier barrier;
    uint64_t slot[32][16];  // what each lane shows the others in a collective
};

struct Block {
    Barrier barrier;
    int voted = 0, vote = 0;
    std::vector<Warp> warps;
    std::vector<unsigned char> shared;
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Block* block;
    Warp* warp;
    uint3 thread, number;
    const Barrier* waits = nullptr;
    unsigned phase = 0;
    bool done = false;
};

inline Fiber* current;
inline ucontext_t scheduler;
inline std::function<void()> body;
constexpr size_t STACK = 256 << 10;

// A spinning thread lets the others run.
inline void yield() { swapcontext(&current->context, &scheduler); }

inline void wait(Barrier& barrier) {
    current->waits = &barrier, current->phase = barrier.phase;
    ++barrier.arrived;
    barrier.check();
    yield();
}

inline void entry() {
    body();
    current->done = true;
    --current->warp->barrier.members, --current->block->barrier.members;
    if (current->warp->barrier.arrived) current->warp->barrier.check();
    if (current->block->barrier.arrived) current->block->barrier.check();
    yield();
}

inline void run(std::vector<std::unique_ptr<Fiber>>& fibers) {
    size_t left = fibers.size();
    for (long rounds = 0; left; ++rounds) {
        bool moved = false;
        for (auto& fiber : fibers) {
            if (fiber->done || (fiber->waits && fiber->waits->phase == fiber->phase)) continue;
            moved = true, fiber->waits = nullptr, current = fiber.get();
            threadIdx = fiber->thread, blockIdx = fiber->number;
            swapcontext(&scheduler, &fiber->context);
            if (fiber->done) --left;
        }
        if (!moved || rounds > 3'000'000) {
            fprintf(stderr, "cuda_on_cpu: %s, %zu threads left\n", moved ? "endless spinning" : "deadlock", left);
            abort();
        }
    }
}

inline void launch(int grid, int block, int shared, bool cooperative, std::function<void()> kernel) {
    body = std::move(kernel);
    gridDim = {unsigned(grid), 1, 1}, blockDim = {unsigned(block), 1, 1};
    const bool reversed = getenv("CUDA_ON_CPU_REVERSED") != nullptr;
    for (int first = 0; first < grid; first += cooperative ? grid : 1) {
        std::vector<std::unique_ptr<Block>> blocks;
        std::vector<std::unique_ptr<Fiber>> fibers;
        for (int b = first; b < (cooperative ? grid : first + 1); ++b) {
            blocks.push_back(std::make_unique<Block>());
            Block& made = *blocks.back();
            made.barrier.members = block;
            made.warps.resize((block + 31) / 32);
            made.shared.assign(shared + 16, 0xff);  // uninitialised: NaN to whoever reads it
            for (int t = 0; t < block; ++t) {
                auto fiber = std::make_unique<Fiber>();
                fiber->block = &made, fiber->warp = &made.warps[t / 32];
                ++fiber->warp->barrier.members;
                fiber->thread = {unsigned(t), 0, 0}, fiber->number = {unsigned(b), 0, 0};
                fiber->stack.reset(new char[STACK]);
                getcontext(&fiber->context);
                fiber->context.uc_stack.ss_sp = fiber->stack.get(), fiber->context.uc_stack.ss_size = STACK;
                fiber->context.uc_link = &scheduler;
                makecontext(&fiber->context, entry, 0);
                fibers.push_back(std::move(fiber));
            }
        }
        if (reversed) std::reverse(fibers.begin(), fibers.end());
        run(fibers);
    }
}

// As the driver takes them: an array of pointers to the kernel's parameters.
template <class... P, size_t... I>
void launch_with(void (*kernel)(P...), int grid, int block, int shared, bool cooperative, void** parameters,
                 std::index_sequence<I...>) {
    launch(grid, block, shared, cooperative, [=] { kernel(*static_cast<std::remove_cv_t<P>*>(parameters[I])...); });
}

template <class... P>
void launch_with(void (*kernel)(P...), int grid, int block, int shared, bool cooperative, void** parameters) {
    launch_with(kernel, grid, block, shared, cooperative, parameters, std::index_sequence_for<P...>{});
}

inline unsigned lane() { return threadIdx.x % 32; }

template <class T> void show(T value, int at = 0) {
    static_assert(sizeof(T) <= 8);
    memcpy(&current->warp->slot[lane()][at], &value, sizeof(T));
}
template <class T> T seen(unsigned from, int at = 0) {
    T value;
    memcpy(&value, &current->warp->slot[from][at], sizeof(T));
    return value;
}
inline void meet() { wait(current->warp->barrier); }

template <class T> T from_lane(T value, unsigned from) {
    show(value), meet();
    T found = seen<T>(from < 32 ? from : lane());
    meet();
    return found;
}

}  // namespace cuda_on_cpu

// launch_NAME(grid, block, shared, cooperative, parameters), for ctypes.
#define CUDA_LAUNCHER(name)                                                                              \
    extern "C" void launch_##name(int grid, int block, int shared, int cooperative, void** parameters) { \
        cuda_on_cpu::launch_with(name, grid, block, shared, cooperative != 0, parameters);               \
    }

inline void __syncthreads() { cuda_on_cpu::wait(cuda_on_cpu::current->block->barrier); }
inline void __syncwarp(unsigned = ~0u) { cuda_on_cpu::meet(); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __trap() { abort(); }
inline void __nanosleep(unsigned) { cuda_on_cpu::yield(); }

template <class T> T __shfl_sync(unsigned, T v, int from, int width = 32) {
    return cuda_on_cpu::from_lane(v, (cuda_on_cpu::lane() / width) * width + from % width);
}
template <class T> T __shfl_xor_sync(unsigned, T v, int mask, int = 32) {
    return cuda_on_cpu::from_lane(v, cuda_on_cpu::lane() ^ mask);
}
template <class T> T __shfl_up_sync(unsigned, T v, unsigned by, int width = 32) {
    const unsigned lane = cuda_on_cpu::lane();
    return cuda_on_cpu::from_lane(v, lane % width >= by ? lane - by : lane);
}
template <class T> T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
    const unsigned lane = cuda_on_cpu::lane();
    return cuda_on_cpu::from_lane(v, lane % width + by < unsigned(width) ? lane + by : lane);
}
// Lanes that have ended, or beyond a short warp, vote nothing; only whole warps may vote.
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    using namespace cuda_on_cpu;
    show(unsigned(predicate != 0)), meet();
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; ++i) votes |= (mask >> i & 1u & seen<unsigned>(i)) << i;
    meet();
    return votes;
}
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __syncthreads_or(int predicate) {
    auto& block = *cuda_on_cpu::current->block;
    __syncthreads();
    block.vote = 0;
    __syncthreads();
    block.vote |= predicate != 0;
    __syncthreads();
    return block.vote;
}

template <class T, class V> T atomicAdd(T* at, V v) { T old = *at; *at = T(old + T(v)); return old; }
template <class T, class V> T atomicSub(T* at, V v) { T old = *at; *at = T(old - T(v)); return old; }
template <class T, class V> T atomicMax(T* at, V v) { T old = *at; *at = std::max(old, T(v)); return old; }
template <class T, class V> T atomicMin(T* at, V v) { T old = *at; *at = std::min(old, T(v)); return old; }
template <class T, class V> T atomicOr(T* at, V v) { T old = *at; *at = old | T(v); return old; }
template <class T, class V> T atomicExch(T* at, V v) { T old = *at; *at = T(v); return old; }
template <class T, class V> T atomicCAS(T* at, V expected, V v) {
    T old = *at;
    if (old == T(expected)) *at = T(v);
    return old;
}

template <class T> T __ldg(const T* at) { return *at; }
inline unsigned __float_as_uint(float v) { unsigned u; memcpy(&u, &v, 4); return u; }
inline int __float_as_int(float v) { int u; memcpy(&u, &v, 4); return u; }
inline float __uint_as_float(unsigned u) { float v; memcpy(&v, &u, 4); return v; }
inline float __int_as_float(int u) { float v; memcpy(&v, &u, 4); return v; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline int __float2int_rd(float v) { return int(std::floor(v)); }
inline int __float2int_rn(float v) { return int(std::nearbyint(v)); }
using std::max;
using std::min;

namespace cuda_on_cpu {

inline float from_half(unsigned short bits) { _Float16 v; memcpy(&v, &bits, 2); return float(v); }
inline unsigned short to_half(float v) { _Float16 h = _Float16(v); unsigned short u; memcpy(&u, &h, 2); return u; }
inline float from_bfloat(unsigned short bits) { return __uint_as_float(unsigned(bits) << 16); }
inline unsigned short to_bfloat(float v) {  // to nearest, ties to even; finite values
    const unsigned u = __float_as_uint(v);
    return (unsigned short)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
inline float to_tf32(float v) {  // cvt.rna.tf32.f32: to nearest, ties away from zero
    return __uint_as_float((__float_as_uint(v) + 0x1000u) & ~0x1fffu);
}

// mma.sync.aligned.m16n8k(K).row.col with float32 sums: d += a b, fragments as the PTX manual lays them out.
// VALUES to a register: 2 (float16, bfloat16: K = 16) or 1 (TF32: K = 8).
template <int VALUES, class Decode>
void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Decode decode) {
    for (int i = 0; i < 4; ++i) show(a[i], i);
    for (int i = 0; i < 2; ++i) show(b[i], 4 + i);
    meet();
    const unsigned group = lane() / 4, place = lane() % 4;
    for (int i = 0; i < 4; ++i) {
        const unsigned row = group + 8 * (i / 2), column = 2 * place + i % 2;
        float sum = d[i];
        for (unsigned k = 0; k < 8u * VALUES; ++k) {
            const unsigned high = k / (4 * VALUES), owner = k % (4 * VALUES) / VALUES, part = k % VALUES;
            const unsigned of_a = seen<unsigned>(4 * (row % 8) + owner, 2 * high + row / 8);
            const unsigned of_b = seen<unsigned>(4 * column + owner, 4 + high);
            sum += decode(of_a, part) * decode(of_b, part);
        }
        d[i] = sum;
    }
    meet();
}
inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma<2>(d, a, b, [](unsigned r, unsigned part) { return from_half((unsigned short)(r >> 16 * part)); });
}
inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma<2>(d, a, b, [](unsigned r, unsigned part) { return from_bfloat((unsigned short)(r >> 16 * part)); });
}
inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma<1>(d, a, b, [](unsigned r, unsigned) { return __uint_as_float(r & ~0x1fffu); });
}

}  // namespace cuda_on_cpu
