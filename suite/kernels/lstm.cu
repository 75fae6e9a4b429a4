// One LSTM layer over a whole segment in one launch; the recurrent matrix stays on chip, spread over all blocks.
//
// A block owns UNITS hidden units. Forward it holds the 4 UNITS rows of the recurrent matrix that make their gates.
// Backward, four blocks form a group: each holds the group's 4 UNITS columns, but of one gate's rows alone, and so
// reads a quarter of the gates' gradients; then the four exchange sums. Either way a time step of a block is the same
// product, [4 UNITS, HIDDEN] times [HIDDEN, BATCH], by tensor cores with float32 sums: warps divide HIDDEN between
// them, and their sums meet in shared memory in a fixed order.
//
// There is no barrier over the grid and no fence: what blocks exchange says itself whether it is there. Each time step
// writes to memory of its own that was filled with ABSENT beforehand, and readers load again what they find absent.
// A word is written at once, in half precision with two units in it. This needs all blocks to be resident: a
// cooperative launch.
//
// Macros: TYPE 0 float16, 1 bfloat16, 2 TF32 (stored as float32); HIDDEN, a multiple of what 16 bytes hold; BATCH;
// UNITS, a multiple of 4; WARPS of a block; RESIDENT, how many of a warp's chunks of the matrix are in registers.
// Gates are in torch's order i, f, g, o.

#if TYPE == 2
typedef float Value;
#else
typedef unsigned short Value;
#endif

constexpr int THREADS = 32 * WARPS;
constexpr int PIECE = 16 / sizeof(Value);  // values in one lane's load
constexpr int CHUNK = 4 * PIECE;           // values of HIDDEN in two steps of the tensor cores
constexpr int CHUNKS = (HIDDEN + CHUNK - 1) / CHUNK;
constexpr int OWN = (CHUNKS + WARPS - 1) / WARPS;  // chunks of a warp
constexpr int ROWS = 4 * UNITS;
constexpr int M_TILES = ROWS / 16;
constexpr int N_TILES = (BATCH + 7) / 8;
constexpr int STRIDE = ROWS + 4;  // twice it is 8 modulo 32 banks: a tile's sums go to 32 banks
constexpr int ITEMS = (BATCH * UNITS + THREADS - 1) / THREADS;  // (sequence, unit) pairs of a thread
constexpr int SUMS = (BATCH * ROWS + THREADS - 1) / THREADS;    // sums that a thread makes for its group
constexpr unsigned ALL = 0xffffffffu;
constexpr unsigned ABSENT = 0xffffffffu;  // a NaN that no conversion makes
constexpr int PATIENCE = 1 << 24;         // more than ten seconds of loads: the launch fails rather than hang
static_assert(ROWS % 16 == 0 && HIDDEN % PIECE == 0 && RESIDENT <= OWN, "sizes");

#ifdef CUDA_ON_CPU

inline uint4 load_shared_by_all(const void* at) { return *static_cast<const uint4*>(at); }
inline unsigned load_word(const void* at) { return *static_cast<const unsigned*>(at); }
inline void store_word(void* at, unsigned word) { *static_cast<unsigned*>(at) = word; }
inline unsigned rounded(unsigned word) { return __float_as_uint(cuda_on_cpu::to_tf32(__uint_as_float(word))); }
#if TYPE == 0
inline float decode(Value v) { return cuda_on_cpu::from_half(v); }
inline Value encode(float v) { return cuda_on_cpu::to_half(v); }
#define MMA cuda_on_cpu::mma_f16
#elif TYPE == 1
inline float decode(Value v) { return cuda_on_cpu::from_bfloat(v); }
inline Value encode(float v) { return cuda_on_cpu::to_bfloat(v); }
#define MMA cuda_on_cpu::mma_bf16
#else
#define MMA cuda_on_cpu::mma_tf32
#endif

#else

#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// Loads and stores at the level that all multiprocessors see.
__device__ __forceinline__ uint4 load_shared_by_all(const void* at) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
    return v;
}
__device__ __forceinline__ unsigned load_word(const void* at) {
    unsigned v;
    asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
    return v;
}
__device__ __forceinline__ void store_word(void* at, unsigned word) {
    asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(at), "r"(word) : "memory");
}
__device__ __forceinline__ unsigned rounded(unsigned word) {
    unsigned v;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(v) : "f"(__uint_as_float(word)));
    return v;
}
#if TYPE == 0
__device__ __forceinline__ float decode(Value v) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
    return f;
}
__device__ __forceinline__ Value encode(float v) {
    Value h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#define MMA_TYPE "m16n8k16.row.col.f32.f16.f16.f32"
#elif TYPE == 1
__device__ __forceinline__ float decode(Value v) { return __uint_as_float((unsigned)v << 16); }
__device__ __forceinline__ Value encode(float v) {
    Value h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#define MMA_TYPE "m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define MMA_TYPE "m16n8k8.row.col.f32.tf32.tf32.f32"
#endif
__device__ __forceinline__ void MMA(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned." MMA_TYPE " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

#if TYPE == 2
__device__ __forceinline__ float decode(Value v) { return v; }
__device__ __forceinline__ Value encode(float v) { return v; }
#endif

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
// Finite x far from 0 give 0 or 2 for the quotient, and so 1 or -1.
__device__ __forceinline__ float hyperbolic(float x) { return 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * x)); }

__device__ __forceinline__ bool lacks(const uint4& v) {
    return max(max(v.x, v.y), max(v.z, v.w)) == ABSENT;
}

// Writes a value that other blocks wait for. Whole warps call it; lanes 2n and 2n + 1 hold neighbouring units.
__device__ __forceinline__ void publish(Value* at, float value, bool real) {
#if TYPE == 2
    const unsigned word = __float_as_uint(value);
    if (real) store_word(at, word == ABSENT ? 0x7fffffffu : word);
#else
    const unsigned mine = encode(value), next = __shfl_down_sync(ALL, mine, 1), word = mine | next << 16;
    if (real && threadIdx.x % 2 == 0) store_word(at, word == ABSENT ? 0x7fff7fffu : word);
#endif
}

// The block's part of the matrix in the order of the tensor cores' fragments. Row r of a tile's 16 and a lane's 16
// bytes of a chunk: the values of HIDDEN that one mma multiplies are not consecutive, which is all the same to a sum
// as long as both factors take them alike.
struct Matrix {
    uint4 held[RESIDENT > 0 ? RESIDENT : 1][M_TILES][2];
    uint4* rest;  // in shared memory: [OWN - RESIDENT, M_TILES, 2, THREADS]

    __device__ __forceinline__ uint4* spare(int chunk, int tile, int half) const {
        return rest + (((chunk - RESIDENT) * M_TILES + tile) * 2 + half) * THREADS + threadIdx.x;
    }

    // fetch(row, k): PIECE values from k on; k is below HIDDEN. Nothing branches, so that the loads do not wait for
    // each other.
    template <class Fetch> __device__ __forceinline__ void fill(Fetch fetch) {
        const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, place = threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < OWN; ++j) {
#pragma unroll
            for (int m = 0; m < M_TILES; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int k = (warp * OWN + j) * CHUNK + place * PIECE;
                    uint4 v = fetch(m * 16 + half * 8 + group, k < HIDDEN ? k : 0);
                    if (k >= HIDDEN) v = make_uint4(0, 0, 0, 0);
#if TYPE == 2
                    v = make_uint4(rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w));
#endif
                    if (j < RESIDENT) held[j][m][half] = v;
                    else *spare(j, m, half) = v;
                }
            }
        }
    }

    // sums[warp, sequence, row] of this warp's chunks, from x [BATCH, HIDDEN] whose rows are `pitch` values apart.
    __device__ __forceinline__ void multiply(const Value* x, int pitch, bool wait, float* sums) const {
        const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, place = threadIdx.x % 4;
        const int first = warp * OWN * CHUNK + place * PIECE;
        const Value* at = x + group * pitch + first;
        uint4 v[OWN][N_TILES];
#pragma unroll
        for (int j = 0; j < OWN; ++j) {
#pragma unroll
            for (int n = 0; n < N_TILES; ++n) {
                v[j][n] = make_uint4(0, 0, 0, 0);
                if (n * 8 + group < BATCH && first + j * CHUNK < HIDDEN)
                    v[j][n] = load_shared_by_all(at + n * 8 * pitch + j * CHUNK);
            }
        }
        for (int asked = 0; wait; ++asked) {
            bool absent = false;
#pragma unroll
            for (int j = 0; j < OWN; ++j) {
#pragma unroll
                for (int n = 0; n < N_TILES; ++n) absent |= lacks(v[j][n]);
            }
            if (!__any_sync(ALL, absent)) break;
            if (asked == PATIENCE) __trap();
#pragma unroll
            for (int j = 0; j < OWN; ++j) {
#pragma unroll
                for (int n = 0; n < N_TILES; ++n)
                    if (lacks(v[j][n])) v[j][n] = load_shared_by_all(at + n * 8 * pitch + j * CHUNK);
            }
        }
        float found[M_TILES][N_TILES][4] = {};
#pragma unroll
        for (int j = 0; j < OWN; ++j) {
#if TYPE == 2
#pragma unroll
            for (int n = 0; n < N_TILES; ++n)
                v[j][n] = make_uint4(rounded(v[j][n].x), rounded(v[j][n].y), rounded(v[j][n].z), rounded(v[j][n].w));
#endif
#pragma unroll
            for (int m = 0; m < M_TILES; ++m) {
                uint4 low, high;
                if (j < RESIDENT) low = held[j][m][0], high = held[j][m][1];
                else low = *spare(j, m, 0), high = *spare(j, m, 1);
                const unsigned one[4] = {low.x, high.x, low.y, high.y}, two[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
                for (int n = 0; n < N_TILES; ++n) {
                    const unsigned left[2] = {v[j][n].x, v[j][n].y}, right[2] = {v[j][n].z, v[j][n].w};
                    MMA(found[m][n], one, left);
                    MMA(found[m][n], two, right);
                }
            }
        }
        float* to = sums + (warp * N_TILES * 8 + 2 * place) * STRIDE + group;
#pragma unroll
        for (int m = 0; m < M_TILES; ++m) {
#pragma unroll
            for (int n = 0; n < N_TILES; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    to[(n * 8 + i % 2) * STRIDE + m * 16 + i / 2 * 8] = found[m][n][i];
            }
        }
    }
};

__device__ __forceinline__ float total(const float* sums, int sequence, int row) {
    float found = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) found += sums[(w * N_TILES * 8 + sequence) * STRIDE + row];
    return found;
}

// A thread's i-th pair of a sequence and one of the block's units.
struct Item {
    int sequence, own, unit;
    bool real;
    __device__ __forceinline__ explicit Item(int i) {
        const int index = i * THREADS + threadIdx.x;
        sequence = index / UNITS, own = index % UNITS, unit = blockIdx.x * UNITS + own;
        real = index < BATCH * UNITS && unit < HIDDEN;
    }
    // Where its value is in an array [T, BATCH, HIDDEN], and its first gate's in [T, BATCH, 4 HIDDEN].
    __device__ __forceinline__ long long at(int t) const { return ((long long)t * BATCH + sequence) * HIDDEN + unit; }
    __device__ __forceinline__ long long gate_at(int t) const {
        return ((long long)t * BATCH + sequence) * 4 * HIDDEN + unit;
    }
};

// projected [T, BATCH, 4 HIDDEN]: inputs times input weights. recurrent [4 HIDDEN, HIDDEN]. bias [2, 4 HIDDEN].
// first_c [BATCH, HIDDEN]. h [T + 1, BATCH, HIDDEN]: the state before the segment, then ABSENT, to be replaced.
// Left for backward: gates [T, BATCH, 4 HIDDEN] after their functions, cells [T, BATCH, HIDDEN].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_forward(const float* __restrict__ projected, const Value* __restrict__ recurrent, const Value* __restrict__ bias,
             const Value* __restrict__ first_c, Value* h, Value* gates, float* cells, Value* last_h, Value* last_c,
             int steps) {
    DYNAMIC_SHARED(memory);
    Matrix matrix;
    matrix.rest = reinterpret_cast<uint4*>(memory);
    float* sums = reinterpret_cast<float*>(memory + sizeof(uint4) * (OWN - RESIDENT) * M_TILES * 2 * THREADS);
    matrix.fill([&](int row, int k) {
        const int unit = blockIdx.x * UNITS + row % UNITS;
        const long long line = (long long)(row / UNITS) * HIDDEN + min(unit, HIDDEN - 1);
        const uint4 found = *reinterpret_cast<const uint4*>(recurrent + line * HIDDEN + k);
        return unit < HIDDEN ? found : make_uint4(0, 0, 0, 0);
    });
    float c[ITEMS], shift[ITEMS][4], next[ITEMS][4];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const Item item(i);
        c[i] = item.real ? decode(first_c[item.at(0)]) : 0.0f;
#pragma unroll
        for (int g = 0; g < 4; ++g) {
            const int row = g * HIDDEN + item.unit;
            shift[i][g] = item.real ? decode(bias[row]) + decode(bias[4 * HIDDEN + row]) : 0.0f;
            next[i][g] = item.real ? projected[item.gate_at(0) + g * HIDDEN] : 0.0f;
        }
    }
    for (int t = 0; t < steps; ++t) {
        matrix.multiply(h + (long long)t * BATCH * HIDDEN, HIDDEN, t > 0, sums);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i);
            const int sequence = item.real ? item.sequence : 0;
            float a[4];
#pragma unroll
            for (int g = 0; g < 4; ++g)
                a[g] = next[i][g] + shift[i][g] + total(sums, sequence, g * UNITS + item.own);
            a[0] = sigmoid(a[0]), a[1] = sigmoid(a[1]), a[2] = hyperbolic(a[2]), a[3] = sigmoid(a[3]);
            c[i] = a[1] * c[i] + a[0] * a[2];
            const float value = a[3] * hyperbolic(c[i]);
            publish(h + item.at(t + 1), value, item.real);
            if (!item.real) continue;
            if (t + 1 < steps) {
#pragma unroll
                for (int g = 0; g < 4; ++g) next[i][g] = projected[item.gate_at(t + 1) + g * HIDDEN];
            } else {
                last_h[item.at(0)] = encode(value), last_c[item.at(0)] = encode(c[i]);
            }
            cells[item.at(t)] = c[i];
#pragma unroll
            for (int g = 0; g < 4; ++g) gates[item.gate_at(t) + g * HIDDEN] = encode(a[g]);
        }
        __syncthreads();  // all have read the sums; nobody asks for h before this block has given its own
    }
}

// of_h [T, BATCH, HIDDEN]: the output's gradient. of_gates [T, BATCH, 4 HIDDEN]: ABSENT, to be replaced by the
// gradient before the gates' functions. exchange [blocks, 4, BATCH, UNITS]: zeros. of_bias [2, 4 HIDDEN], both alike.
//
// A sum goes to its block with the parity of the time step as its last bit, which costs 1e-7 of it. One slot is
// enough: a block writes the next sum for a unit only after it has read the gradient that followed from the last one.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_backward(const Value* __restrict__ of_h, const Value* __restrict__ recurrent, const Value* __restrict__ gates,
              const float* __restrict__ cells, const Value* __restrict__ first_c, Value* of_gates, float* exchange,
              Value* of_bias, int steps) {
    DYNAMIC_SHARED(memory);
    Matrix matrix;
    matrix.rest = reinterpret_cast<uint4*>(memory);
    float* sums = reinterpret_cast<float*>(memory + sizeof(uint4) * (OWN - RESIDENT) * M_TILES * 2 * THREADS);
    const int team = blockIdx.x / 4, rank = blockIdx.x % 4;
    matrix.fill([&](int row, int k) {
        const int unit = team * ROWS + row;
        const Value* column = recurrent + ((long long)rank * HIDDEN + k) * HIDDEN + min(unit, HIDDEN - 1);
        union { Value values[PIECE]; uint4 whole; } found;
#pragma unroll
        for (int e = 0; e < PIECE; ++e) found.values[e] = column[e * HIDDEN];
        return unit < HIDDEN ? found.whole : make_uint4(0, 0, 0, 0);
    });
    float of_c[ITEMS] = {}, shift[ITEMS][4] = {}, c[ITEMS], before[ITEMS], first[ITEMS];
    Value of_y[ITEMS], saved[ITEMS][4];
    // Asks for what time step t needs beside the others' gradients; not decoded here, which would wait for it.
    const auto ask = [&](int t) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i);
            if (!item.real) continue;
            of_y[i] = of_h[item.at(t)];
            before[i] = t > 0 ? cells[item.at(t - 1)] : first[i];
#pragma unroll
            for (int g = 0; g < 4; ++g) saved[i][g] = gates[item.gate_at(t) + g * HIDDEN];
        }
    };
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const Item item(i);
        c[i] = before[i] = 0.0f, of_y[i] = saved[i][0] = saved[i][1] = saved[i][2] = saved[i][3] = 0;
        first[i] = item.real ? decode(first_c[item.at(0)]) : 0.0f;
        if (item.real) c[i] = cells[item.at(steps - 1)];
    }
    ask(steps - 1);
    unsigned parity = 0;
    for (int t = steps - 1; t >= 0; --t) {
        float of_shown[ITEMS] = {};
        if (t + 1 < steps) {
            parity ^= 1;
            matrix.multiply(of_gates + (long long)(t + 1) * BATCH * 4 * HIDDEN + rank * HIDDEN, 4 * HIDDEN, true, sums);
            __syncthreads();
            unsigned own[SUMS];
#pragma unroll
            for (int i = 0; i < SUMS; ++i) {
                const int e = min(i * THREADS + (int)threadIdx.x, BATCH * ROWS - 1);
                own[i] = (__float_as_uint(total(sums, e / ROWS, e % ROWS)) & ~1u) | parity;
            }
#pragma unroll
            for (int i = 0; i < SUMS; ++i) {
                const int e = i * THREADS + threadIdx.x, row = e % ROWS, slot = (team * 4 + row / UNITS) * 4 + rank;
                if (e < BATCH * ROWS) store_word(exchange + (slot * BATCH + e / ROWS) * UNITS + row % UNITS, own[i]);
            }
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i);
                const float* slot = exchange + (blockIdx.x * 4 * BATCH + item.sequence) * UNITS + item.own;
                unsigned part[4] = {};
                for (int asked = 0;; ++asked) {
                    bool missing = false;
                    if (item.real) {
#pragma unroll
                        for (int r = 0; r < 4; ++r) part[r] = load_word(slot + r * BATCH * UNITS);
#pragma unroll
                        for (int r = 0; r < 4; ++r) missing |= (part[r] & 1u) != parity;
                    }
                    if (!__any_sync(ALL, missing)) break;
                    if (asked == PATIENCE) __trap();
                }
#pragma unroll
                for (int r = 0; r < 4; ++r) of_shown[i] += __uint_as_float(part[r]);
            }
        }
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i);
            const float in = decode(saved[i][0]), forget = decode(saved[i][1]), cell = decode(saved[i][2]);
            const float out = decode(saved[i][3]), shown = hyperbolic(c[i]), of_value = decode(of_y[i]) + of_shown[i];
            const float inner = of_c[i] + of_value * out * (1.0f - shown * shown);
            of_c[i] = inner * forget;
            const float found[4] = {inner * cell * in * (1.0f - in), inner * before[i] * forget * (1.0f - forget),
                                    inner * in * (1.0f - cell * cell), of_value * shown * out * (1.0f - out)};
            c[i] = before[i];
#pragma unroll
            for (int g = 0; g < 4; ++g) {
                publish(of_gates + item.gate_at(t) + g * HIDDEN, found[g], item.real);
                shift[i][g] += found[g];
            }
        }
        if (t > 0) ask(t - 1);
        __syncthreads();  // all have read the sums
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const Item item(i);
        if (!item.real) continue;
#pragma unroll
        for (int g = 0; g < 4; ++g) sums[item.sequence * STRIDE + g * UNITS + item.own] = shift[i][g];
    }
    __syncthreads();
    for (int row = threadIdx.x; row < ROWS; row += THREADS) {
        const int unit = blockIdx.x * UNITS + row % UNITS, place = row / UNITS * HIDDEN + unit;
        if (unit >= HIDDEN) continue;
        float found = 0.0f;
        for (int b = 0; b < BATCH; ++b) found += sums[b * STRIDE + row];
        of_bias[place] = of_bias[4 * HIDDEN + place] = encode(found);
    }
}
