// For every piece j of a PLIF, the sums over the logits z on it of A = dz (z - x_j) and B = dz, x_j its left knot.
//
// The sums are integers: dz times a power of two, rounded. A block keeps a window of pieces in shared memory as 32-bit
// numbers, where an addition is one native instruction, and adds what leaves their range to 64-bit sums in global
// memory when an addition wraps. So a total is exact whatever the order, and no bound on a block's share is needed:
// the factor leaves a typical logit some 20 bits. Logits outside of the window, on the end pieces (which extend
// without bound) and with a very large gradient go to the 64-bit sums directly.
//
// Defines: those of pieces.cu, and WINDOW (pieces, a multiple of 4, at most all but the two ends).

#include "pieces.cu"

#ifdef CUDA_ON_CPU
inline long long to_integer(float v) { return (long long)std::nearbyint(v); }
#else
__device__ __forceinline__ long long to_integer(float v) {
    long long i;
    asm("cvt.rni.s64.f32 %0, %1;" : "=l"(i) : "f"(v));
    return i;
}
#endif

typedef unsigned long long Wide;

constexpr int ROWS = 2;            // rows of which a thread takes the same columns, with one look at the bias
constexpr int QUADS = WINDOW / 2;  // fours of numbers in a block's window
constexpr int STORED = 4;          // of them that a thread adds to its slab at once
constexpr float LARGE = 1073741824.0f;              // 2^30: beyond it a number is not for 32 bits
constexpr float HUGE_SUM = 4611686018427387904.0f;  // 2^62: nor for 64

// What `prepare` decides for a call.
struct Plan {
    int first;       // piece with which the window begins, at least 1
    int broken;      // whether a logit's part was no number, or too large
    float unit;      // factor on dz; A's is the same, with distances in lengths of a piece
    float end_unit;  // factor on A of the end pieces, with distances as they are
};

// Whether old + added left the range of 32 bits, as a sign bit.
__device__ __forceinline__ unsigned wrapped(unsigned old, unsigned added) {
    const unsigned sum = old + added;
    return (old ^ sum) & (added ^ sum);
}

__device__ __forceinline__ bool any(const int4& v) { return (v.x | v.y | v.z | v.w) != 0; }

// What a wrapped sum lacks.
__device__ __forceinline__ void carry(Wide* sum, bool upwards) {
    atomicAdd(sum, upwards ? Wide(1) << 32 : ~Wide(0) << 32);
}

// One logit into the sums in global memory: A [count], then B [count].
__device__ void add_directly(float z, float of_z, Knots knots, Plan* plan, Wide* sums) {
    const float q = knots.place(z);
    const float left = fminf(fmaxf(floorf(q), 0.0f), knots.count - 1.0f);
    const int piece = int(left);
    const bool end = piece == 0 || piece == knots.count - 1;
    const float b = of_z * plan->unit;
    const float a = end ? of_z * plan->end_unit * (z - (left * knots.length - knots.bound)) : b * (q - left);
    if (!(fabsf(a) < HUGE_SUM && fabsf(b) < HUGE_SUM)) {
        plan->broken = 1;
        return;
    }
    atomicAdd(sums + piece, Wide(to_integer(a)));
    atomicAdd(sums + knots.count + piece, Wide(to_integer(b)));
}

// AT_ONCE logits; `tallies` in shared memory: A [WINDOW], then B [WINDOW].
__device__ __forceinline__ void tally(const float (&z)[AT_ONCE], const float (&of_z)[AT_ONCE], Knots knots,
                                      unsigned origin, float unit, unsigned* tallies, Plan* plan, Wide* sums) {
    unsigned at[AT_ONCE], a[AT_ONCE], b[AT_ONCE], before_a[AT_ONCE], before_b[AT_ONCE], wraps = 0;
    bool outside[AT_ONCE], any_outside = false;
#pragma unroll
    for (int k = 0; k < AT_ONCE; ++k) {
        const float q = knots.place(z[k]);
        // The bits of floor(q) + 2^23 hold the piece. A q that is negative, huge or no number comes out elsewhere.
        const float whole = add_down(q, INTEGERS);
        const float of_start = of_z[k] * unit, of_slope = of_start * (q - (whole - INTEGERS));
        at[k] = unsigned(__float_as_int(whole)) - origin;
        a[k] = unsigned(__float2int_rn(of_slope)), b[k] = unsigned(__float2int_rn(of_start));
        before_a[k] = before_b[k] = 0;
        // Padding and words without weight have a gradient of zero.
        const bool counts = of_z[k] != 0.0f, inside = (at[k] < unsigned(WINDOW)) & (fabsf(of_start) < LARGE);
        outside[k] = counts & !inside;
        any_outside |= outside[k];
        if (counts & inside) {
            before_a[k] = atomicAdd(tallies + at[k], a[k]);
            before_b[k] = atomicAdd(tallies + WINDOW + at[k], b[k]);
        }
    }
#pragma unroll
    for (int k = 0; k < AT_ONCE; ++k) wraps |= wrapped(before_a[k], a[k]) | wrapped(before_b[k], b[k]);
    if (any_outside | int(wraps) < 0) {
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            if (outside[k]) add_directly(z[k], of_z[k], knots, plan, sums);
            Wide* sum = sums + plan->first + at[k];
            if (wrapped(before_a[k], a[k]) >> 31) carry(sum, int(a[k]) > 0);
            if (wrapped(before_b[k], b[k]) >> 31) carry(sum + knots.count, int(b[k]) > 0);
        }
    }
}

// Add a chunk's logits and their gradients, both [rows, width] and width a multiple of 8, to the sums.
//
// `bias` [width]. `slabs` [blocks, 2, WINDOW]: the blocks' windows between launches; `fresh`: nothing is in them yet.
// `sums` [2, count]. A gradient of zero counts for nothing, whatever its logit is.
extern "C" __global__ void __launch_bounds__(1024, 1)
accumulate(const void* __restrict__ logits, const void* __restrict__ gradient, const float* __restrict__ bias,
           int4* slabs, Wide* sums, Plan* plan, int rows, int width, int count, int fresh, float bound,
           float per_unit) {
    const unsigned segments = (unsigned(width) + COLUMNS - 1) / COLUMNS;
    const unsigned units = (unsigned(rows) + ROWS - 1) / ROWS * segments;
    const unsigned block_warps = blockDim.x / 32;
    // Neighbours take neighbouring columns of the same rows.
    const unsigned warp = blockIdx.x * block_warps + threadIdx.x / 32;
    if (!fresh && blockIdx.x * block_warps >= units) return;

    DYNAMIC_SHARED(pool);
    int4* quads = reinterpret_cast<int4*>(pool);
    unsigned* tallies = reinterpret_cast<unsigned*>(pool);
    for (int i = threadIdx.x; i < QUADS; i += blockDim.x) quads[i] = int4{0, 0, 0, 0};
    const Knots knots{count, bound, per_unit, 2.0f * bound / float(count)};
    const int first = plan->first;
    const unsigned origin = unsigned(INTEGERS_BITS + first);
    const float factor = plan->unit;
    __syncthreads();

    for (unsigned unit = warp; unit < units; unit += gridDim.x * block_warps) {
        const unsigned row = unit / segments * ROWS;
        const unsigned column = unit % segments * COLUMNS + threadIdx.x % 32 * TAKEN;
        if (column >= unsigned(width)) continue;
        Taken<LOGITS> z[ROWS];
        Taken<GRADIENT> of_z[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            // A row that is not there is read as the last one and not counted.
            const unsigned long long here = min(row + r, unsigned(rows) - 1);
            z[r].load(logits, here * unsigned(width) + column);
            of_z[r].load(gradient, here * unsigned(width) + column);
        }
#pragma unroll
        for (int part = 0; part < TAKEN; part += AT_ONCE) {
#if BIAS
            const float4 four = *reinterpret_cast<const float4*>(bias + column + part);
            const float offset[AT_ONCE] = {four.x, four.y, four.z, four.w};
#endif
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                if (row + r >= unsigned(rows)) break;
                float x[AT_ONCE], of_x[AT_ONCE];
#pragma unroll
                for (int k = 0; k < AT_ONCE; ++k) {
                    x[k] = z[r].value(part + k);
#if BIAS
                    x[k] += offset[k];
#endif
                    of_x[k] = of_z[r].value(part + k);
                }
                tally(x, of_x, knots, origin, factor, tallies, plan, sums);
            }
        }
    }

    __syncthreads();
    int4* slab = slabs + (unsigned long long)(blockIdx.x) * QUADS;
    for (int start = threadIdx.x; start < QUADS; start += STORED * blockDim.x) {
        int4 there[STORED];
#pragma unroll
        for (int k = 0; k < STORED; ++k) {
            const int i = start + k * int(blockDim.x);
            there[k] = int4{0, 0, 0, 0};
            if (!fresh && i < QUADS && any(quads[i])) there[k] = slab[i];
        }
#pragma unroll
        for (int k = 0; k < STORED; ++k) {
            const int i = start + k * int(blockDim.x);
            if (i >= QUADS || (!fresh && !any(quads[i]))) continue;
            const int4 mine = quads[i];
            const unsigned old[4] = {unsigned(there[k].x), unsigned(there[k].y), unsigned(there[k].z),
                                     unsigned(there[k].w)};
            const unsigned added[4] = {unsigned(mine.x), unsigned(mine.y), unsigned(mine.z), unsigned(mine.w)};
            slab[i] = int4{int(old[0] + added[0]), int(old[1] + added[1]), int(old[2] + added[2]),
                           int(old[3] + added[3])};
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                const int place = 4 * i + part, of_start = place >= WINDOW;
                if (wrapped(old[part], added[part]) >> 31)
                    carry(sums + of_start * count + first + place - of_start * WINDOW, int(added[part]) > 0);
            }
        }
    }
}

__device__ __forceinline__ float power_of_two_below(float v) {
    return __uint_as_float(__float_as_uint(v) & 0x7f800000u);
}

// Decide the window and the factors of a call; one block of a power of two threads.
//
// `weights` [tokens], or `uniform` unless `weighted`. `scale`, a number on the device, or `host_scale` unless `scaled`:
// the factor on the gradients. `elements`: logits of the whole call.
extern "C" __global__ void __launch_bounds__(1024, 1)
prepare(const float* __restrict__ slopes, const float* __restrict__ weights, const float* __restrict__ scale,
        const Sample* __restrict__ sample, Plan* plan, int tokens, int count, int weighted, int scaled,
        float elements, float uniform, float host_scale) {
    __shared__ float steepest[1024], weight[1024];
    const int me = threadIdx.x, threads = blockDim.x;
    float steep = 0.0f, total = 0.0f;
#pragma unroll 16
    for (int i = me; i < count; i += threads) steep = fmaxf(steep, slopes[i]);
    if (weighted) {
#pragma unroll 4
        for (int i = me; i < tokens; i += threads) total += fabsf(weights[i]);
    }
    steepest[me] = steep, weight[me] = total;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (me < half) {
            steepest[me] = fmaxf(steepest[me], steepest[me + half]);
            weight[me] += weight[me + half];
        }
    }
    if (me == 0) {
        const float first = fminf(fmaxf(floorf(sample->centre) - float(WINDOW / 2), 1.0f), float(count - 1 - WINDOW));
        plan->first = int(first);
        plan->broken = 0;
        // Sum of |dz| over the call: at most 2 sum |w| steepest scale, and on average over the logits that / elements.
        const float all = weighted ? weight[0] : float(tokens) * fabsf(uniform);
        const float most = fmaxf(2.0f * all * steepest[0] * (scaled ? *scale : host_scale), 1e-30f);
        // 2^23 for that average: as slopes are below the steepest, a typical logit gets 2^20 or so, and wraps are rare.
        // All of 10^8 logits make 2^50. On the end pieces 2^51 leaves room for all of them at distances of 2^11.
        plan->unit = power_of_two_below(fminf(fminf(8388608.0f * elements, 5.7e17f) / most, 1e30f));
        plan->end_unit = power_of_two_below(fminf(2.2517998e15f / most, 1e30f));
    }
}

// The gradients by the slopes [count], then by the knots' values [count]: the sums over g'(z) dL/dt, which dz is, by
// the piece's slope. A slope that has underflowed to zero has lost them and gets zero. A thread a number.
extern "C" __global__ void __launch_bounds__(256)
collect(const unsigned* __restrict__ slabs, const Wide* __restrict__ sums, const float* __restrict__ slopes,
        const float* __restrict__ scale, const Plan* __restrict__ plan, float* out, int blocks, int count, int scaled,
        float host_scale, float per_unit) {
    const int number = blockIdx.x * blockDim.x + threadIdx.x;
    if (number >= 2 * count) return;
    const int of_start = number >= count, piece = number - of_start * count, place = piece - plan->first;
    long long total = (long long)(sums[number]);
    if (place >= 0 && place < WINDOW) {
        const unsigned* at = slabs + of_start * WINDOW + place;
#pragma unroll 12
        for (int block = 0; block < blocks; ++block) total += int(at[(unsigned long long)(block) * 2 * WINDOW]);
    }
    const bool end = piece == 0 || piece == count - 1;
    const double factor = of_start ? plan->unit : end ? plan->end_unit : double(plan->unit) * per_unit;
    const double slope = slopes[piece], by = factor * slope * (scaled ? *scale : host_scale);
    out[number] = plan->broken ? __uint_as_float(0x7fc00000u) : slope == 0.0 ? 0.0f : float(double(total) / by);
}
