// The log-sum-exp and the logits' gradient of a softmax of g(z), g a PLIF: triton_rows.py's `statistics` and `gradient`
// with the part of g's table that nearly every logit needs in shared memory.
//
// A gather of a warp from global memory is served about one address at a time, one from shared memory by 32 banks. An
// entry (slope, start) is kept as one number of 8 bytes: these go by half warps, each on 16 pairs of banks, and 16 random
// ones meet 3.1 times on their fullest pair, so that a warp takes 6.2 clocks; two gathers of 4 bytes would take 3.5 each,
// and an instruction more. A logit whose piece is not there finds it in global memory, with the same bits.
//
// There is one block to a multiprocessor, so both kernels cut a chunk into as many equal parts as there are warps.
//
// Defines: those of pieces.cu.

#include "pieces.cu"

#ifdef CUDA_ON_CPU
inline float ex2(float v) { return std::exp2(v); }
inline unsigned packed_half(float low, float high) {
    return cuda_on_cpu::to_half(low) | unsigned(cuda_on_cpu::to_half(high)) << 16;
}
inline unsigned packed_bfloat(float low, float high) {
    const auto one = [](float v) { return v == v ? unsigned(cuda_on_cpu::to_bfloat(v)) : 0x7fffu; };
    return one(low) | one(high) << 16;
}
#else
__device__ __forceinline__ float ex2(float v) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(v));
    return power;
}
__device__ __forceinline__ unsigned packed_half(float low, float high) {
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
__device__ __forceinline__ unsigned packed_bfloat(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
#endif

constexpr int ROWS = 16 / TAKEN;  // that a warp takes at a time: enough loads under way, few looks at bias and targets
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LEAST = -3.0e38f;
constexpr float DEVIATIONS = 5.0f;  // of the sample to either side that are worth loading
constexpr int LOADED = 7;            // pairs of pieces that a thread loads at once
constexpr float AROUND = 64.0f;     // pieces more: a sample of equal logits has no deviation

struct Table {
    const float2* near;  // in shared memory: (slope times the length of a piece, start) of the pieces from `origin`
    const float2* far;   // (slope, start) of every piece
    unsigned origin, held;  // the first piece, as float32 bits of 2^23 and it; how many
};

// Load the pieces around the sample, at most `window`, into the block's shared memory.
__device__ __forceinline__ Table hold(const float2* pieces, const Sample* sample, Knots knots, int window,
                                      unsigned char* pool) {
    const float wanted = 2.0f * (DEVIATIONS * sample->spread + AROUND);
    const int held = int(fminf(wanted, fminf(float(window), float(knots.count)))) & ~1;
    const float first = floorf(sample->centre) - float(held / 2);
    const int origin = int(fminf(fmaxf(first, 0.0f), float(knots.count - held))) & ~1;  // at 16 bytes
    const float4* from = reinterpret_cast<const float4*>(pieces + origin);
    float4* to = reinterpret_cast<float4*>(pool);
    for (int start = threadIdx.x; start < held / 2; start += LOADED * blockDim.x) {
        float4 two[LOADED];
#pragma unroll
        for (int k = 0; k < LOADED; ++k) two[k] = from[min(start + k * int(blockDim.x), held / 2 - 1)];
#pragma unroll
        for (int k = 0; k < LOADED; ++k) {
            const int i = start + k * int(blockDim.x);
            if (i < held / 2) to[i] = make_float4(two[k].x * knots.length, two[k].y, two[k].z * knots.length, two[k].w);
        }
    }
    __syncthreads();
    return {reinterpret_cast<const float2*>(pool), pieces, unsigned(INTEGERS_BITS + origin), unsigned(held)};
}

// The entry of the piece of place q in global memory, as in shared memory; `rest` is q's distance from its left knot.
__device__ __forceinline__ float2 entry_from_afar(float q, const Table& table, Knots knots, float& rest) {
    const float left = fminf(fmaxf(floorf(q), 0.0f), float(knots.count) - 1.0f);  // the end pieces extend
    const float2 entry = table.far[int(left)];
    rest = q - left;
    return make_float2(entry.x * knots.length, entry.y);
}

// t = g(z) of N logits, and its slope times the length of a piece.
template <int N>
__device__ __forceinline__ void look_up(const float (&z)[N], const Table& table, Knots knots, float (&t)[N],
                                        float (&rise)[N]) {
    float q[N], rest[N];
    unsigned at[N];
    float2 entry[N];
    bool near = true;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        q[k] = knots.place(z[k]);
        // The bits of floor(q) + 2^23 hold the piece. A q that is negative, huge or no number comes out elsewhere.
        const float whole = add_down(q[k], INTEGERS);
        rest[k] = q[k] - (whole - INTEGERS);
        at[k] = __float_as_uint(whole) - table.origin;
        near &= at[k] < table.held;
    }
    if (near) {
#pragma unroll
        for (int k = 0; k < N; ++k) entry[k] = table.near[at[k]];
    } else {
#pragma unroll
        for (int k = 0; k < N; ++k) entry[k] = entry_from_afar(q[k], table, knots, rest[k]);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
        t[k] = entry[k].x * rest[k] + entry[k].y;
        rise[k] = entry[k].x;
    }
}

__device__ __forceinline__ float evaluate(float z, const Table& table, Knots knots) {
    const float one[1] = {z};
    float t[1], rise[1];
    look_up(one, table, knots, t, rise);
    return t[0];
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(~0u, v, by);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, by));
    return v;
}

// The logits that a warp sums over: `begin`, where each of its rows begins; steps [from, to) of COLUMNS.
struct Stretch {
    const void* logits;
    const float* bias;
    unsigned long long begin[ROWS];
    unsigned from, to, width, words;
};

// A row's sum of exp(t) as (m, s), s exp(m), with a running maximum: for what is beyond float32 against another m.
__device__ float2 sum_by_running_maximum(const Stretch& on, unsigned long long begin, const Table& table, Knots knots) {
    float largest = LEAST, total = 0.0f;
    for (unsigned step = on.from; step < on.to; ++step) {
        for (unsigned k = 0; k < TAKEN; ++k) {
            const unsigned column = step * COLUMNS + k * 32 + threadIdx.x % 32;
            if (column >= on.words) break;
            float z = single(on.logits, begin + column);
#if BIAS
            z += on.bias[column];
#endif
            const float t = evaluate(z, table, knots), difference = t - largest;
            // One of the two exponentials of a running maximum is always that of zero.
            const float smaller = ex2(-fabsf(difference) * LOG2E);
            total = difference > 0.0f ? total * smaller + 1.0f : total + smaller;
            largest = fmaxf(largest, t);
        }
    }
    const float top = warp_max(largest);
    return make_float2(top, warp_sum(total * ex2((largest - top) * LOG2E)));
}

// Add a lane's exp2(t log2(e) - against) of a step to the rows' totals; MASKED: some columns are beyond the words.
template <bool MASKED>
__device__ __forceinline__ void add_step(const Stretch& on, unsigned step, const Table& table, Knots knots,
                                         const float (&against)[ROWS], float (&total)[ROWS]) {
    const unsigned column = step * COLUMNS + threadIdx.x % 32 * TAKEN;
    if (MASKED && column >= on.words) return;
    Taken<LOGITS> taken[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) taken[r].load(on.logits, on.begin[r] + column);
#pragma unroll
    for (int part = 0; part < TAKEN; part += AT_ONCE) {
#if BIAS
        const float4 four = *reinterpret_cast<const float4*>(on.bias + column + part);
        const float offset[AT_ONCE] = {four.x, four.y, four.z, four.w};
#endif
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float z[AT_ONCE], t[AT_ONCE], rise[AT_ONCE];
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                z[k] = taken[r].value(part + k);
#if BIAS
                z[k] += offset[k];
#endif
            }
            look_up(z, table, knots, t, rise);
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                const float power = ex2(t[k] * LOG2E - against[r]);
                total[r] += MASKED && column + part + k >= on.words ? 0.0f : power;
            }
        }
    }
}

// Log-normalisers of a chunk's rows, and log p of their targets.
//
// `logits` [rows, width]; `bias` [width]; `targets` [rows / experts]; `pieces` [count], at 16 bytes; `window`, room for
// them in the dynamic shared memory. Out: `lse`, `log_p`
// and `columns`, the targets as int32, [rows] each. `parts` [ROWS (warps + rows)] is for the warps' sums, `arrived` [rows]
// counts those of every ROWS rows; it is zero before and after.
//
// A warp's part is a stretch of the chunk's steps (ROWS rows of COLUMNS columns), whichever rows these are in; of ROWS
// rows' parts the warp that comes last makes the log-sum-exp, in the parts' order. Exponentials are taken against the
// maximum of a part's first columns: float32 then holds every sum unless a later logit is some 80 above it, and only in
// that case is the part read again with a running maximum.
extern "C" __global__ void __launch_bounds__(1024, 1)
statistics(const void* logits, const float* __restrict__ bias, const long long* __restrict__ targets,
           const float2* __restrict__ pieces, const Sample* __restrict__ sample, float* lse, float* log_p, int* columns,
           float2* parts, unsigned* arrived, int rows, int width, int words, int experts, int count, int window,
           float bound, float per_unit) {
    const unsigned lane = threadIdx.x % 32, block_warps = blockDim.x / 32;
    const unsigned warp = blockIdx.x * block_warps + threadIdx.x / 32;
    const unsigned steps = (unsigned(words) + COLUMNS - 1) / COLUMNS, whole = unsigned(words) / COLUMNS;
    const unsigned all = (unsigned(rows) + ROWS - 1) / ROWS * steps;
    const unsigned share = (all + gridDim.x * block_warps - 1) / (gridDim.x * block_warps);
    if (blockIdx.x * block_warps * share >= all) return;

    DYNAMIC_SHARED(pool);
    const Knots knots{count, bound, per_unit, 2.0f * bound / float(count)};
    const Table table = hold(pieces, sample, knots, window, pool);
    Stretch on{logits, bias, {}, 0, 0, unsigned(width), unsigned(words)};
    const unsigned end = min((warp + 1) * share, all);
    for (unsigned at = warp * share; at < end; at += on.to - on.from) {
        const unsigned group = at / steps;
        on.from = at - group * steps, on.to = min(steps, on.from + (end - at));
        float against[ROWS], total[ROWS], shift[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            // A row that is not there is read as the last one.
            on.begin[r] = (unsigned long long)(min(group * ROWS + r, unsigned(rows) - 1)) * unsigned(width);
            const unsigned column = on.from * COLUMNS + lane * TAKEN;
            shift[r] = LEAST, total[r] = 0.0f;
            if (column < on.words) {
                float z = single(logits, on.begin[r] + column);
#if BIAS
                z += bias[column];
#endif
                shift[r] = evaluate(z, table, knots);
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) shift[r] = warp_max(shift[r]), against[r] = shift[r] * LOG2E;
        for (unsigned step = on.from; step < min(on.to, whole); ++step)
            add_step<false>(on, step, table, knots, against, total);
        if (on.to > whole) add_step<true>(on, whole, table, knots, against, total);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float2 sum = make_float2(shift[r], warp_sum(total[r]));
            if (!(sum.y < 3.4e38f)) sum = sum_by_running_maximum(on, on.begin[r], table, knots);
            // Along the stretches either the warp or the rows go up by one: no two parts have the same place.
            if (lane == 0) parts[(warp + group) * ROWS + r] = sum;
        }

        const unsigned first = group * steps / share, last = ((group + 1) * steps - 1) / share;
        unsigned before = 0;
        if (lane == 0) {
            __threadfence();
            before = atomicAdd(arrived + group, 1u);
        }
        if (__shfl_sync(~0u, before, 0) != last - first) continue;
        __threadfence();
        if (lane == 0) arrived[group] = 0;
        float mine = 0.0f;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float top = LEAST, sum = 0.0f;
            for (unsigned part = first + lane; part <= last; part += 32) {
                const volatile float* there = &parts[(part + group) * ROWS + r].x;  // not as this warp last saw it
                const float m = there[0], s = there[1], larger = fmaxf(top, m);
                sum = sum * ex2((top - larger) * LOG2E) + s * ex2((m - larger) * LOG2E);
                top = larger;
            }
            const float highest = warp_max(top);
            sum = warp_sum(sum * ex2((top - highest) * LOG2E));
            if (lane == r) mine = highest + logf(sum);
        }
        const unsigned row = group * ROWS + lane;
        if (lane < ROWS && row < unsigned(rows)) {
            const int target = int(targets[row / unsigned(experts)]);
            float z = single(logits, (unsigned long long)(row) * unsigned(width) + unsigned(target));
#if BIAS
            z += bias[target];
#endif
            lse[row] = mine, log_p[row] = evaluate(z, table, knots) - mine, columns[row] = target;
        }
    }
}

// The bits of ROWS numbers from a place that is a multiple of ROWS.
__device__ __forceinline__ void load_rows(const void* from, unsigned (&to)[ROWS]) {
    if constexpr (ROWS == 4) {
        const uint4 v = *static_cast<const uint4*>(from);
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else {
        const uint2 v = *static_cast<const uint2*>(from);
        to[0] = v.x, to[1] = v.y;
    }
}

// What the gradient of ROWS rows is made from.
struct RowNumbers {
    float against[ROWS], part[ROWS];  // log-normaliser times log2(e); share times the factors
    unsigned target[ROWS];
};

// Gradients of ROWS rows from `row`, of which `present` are there; a lane's sums by column go to `sums`.
// PLAIN: all of the rows and columns are there, and no target lies among them, as nearly everywhere.
template <bool PLAIN>
__device__ __forceinline__ void differentiate(const Taken<LOGITS> (&taken)[ROWS], void* out, unsigned row,
                                              unsigned present, unsigned column, unsigned width, unsigned words,
                                              const float (&offset)[TAKEN], const RowNumbers& numbers,
                                              const Table& table, Knots knots, float (&sums)[TAKEN]) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (!PLAIN && r >= int(present)) break;
        Taken<GRADIENT> made;
#pragma unroll
        for (int part = 0; part < TAKEN; part += AT_ONCE) {
            float z[AT_ONCE], t[AT_ONCE], rise[AT_ONCE];
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                z[k] = taken[r].value(part + k);
#if BIAS
                z[k] += offset[part + k];
#endif
            }
            look_up(z, table, knots, t, rise);
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                float p = ex2(t[k] * LOG2E - numbers.against[r]);
                if (!PLAIN && column + part + k == numbers.target[r]) p -= 1.0f;
                float of_z = numbers.part[r] * p * rise[k];
                if (!PLAIN && column + part + k >= words) of_z = 0.0f;
                sums[part + k] += of_z;
                t[k] = of_z;
            }
            if constexpr (GRADIENT == 0) {
#pragma unroll
                for (int k = 0; k < AT_ONCE; ++k) made.word[part + k] = __float_as_uint(t[k]);
            } else {
#pragma unroll
                for (int k = 0; k < AT_ONCE; k += 2)
                    made.word[(part + k) / 2] =
                        GRADIENT == 1 ? packed_bfloat(t[k], t[k + 1]) : packed_half(t[k], t[k + 1]);
            }
        }
        made.store(out, (unsigned long long)(row + r) * width + column);
    }
}

// The gradient by the logits, share (softmax(g(z)) - onehot) g'(z) times a factor; beyond the words it is zero.
//
// `out` [rows, width] may be `logits`. `lse`, `shares` and `columns` [rows], at 16 bytes, with room for a multiple of
// ROWS. `of_bias` [groups, width] collects the sums, without the factor, over every `size` rows, chunk after chunk, if
// `summed`. `size` is a multiple of ROWS. `scale`, a number on the device, is the factor if `scaled`, else `host_scale`.
extern "C" __global__ void __launch_bounds__(1024, 1)
gradient(const void* logits, void* out, const float* __restrict__ bias, const float2* __restrict__ pieces,
         const Sample* __restrict__ sample, const float* __restrict__ lse, const float* __restrict__ shares,
         const int* __restrict__ columns, const float* __restrict__ scale, float* of_bias, int rows, int width,
         int words, int count, int window, int groups, int size, int scaled, int summed, float host_scale,
         float bound, float per_unit) {
    const unsigned segments = (unsigned(width) + COLUMNS - 1) / COLUMNS, units = unsigned(groups) * segments;
    const unsigned block_warps = blockDim.x / 32, warp = blockIdx.x * block_warps + threadIdx.x / 32;
    if (blockIdx.x * block_warps >= units) return;

    DYNAMIC_SHARED(pool);
    const Knots knots{count, bound, per_unit, 2.0f * bound / float(count)};
    const Table table = hold(pieces, sample, knots, window, pool);
    const float factor = scaled ? *scale : host_scale, by = factor * per_unit, back = 1.0f / factor;
    for (unsigned unit = warp; unit < units; unit += gridDim.x * block_warps) {
        const unsigned group = unit / segments, segment = (unit - group * segments) * COLUMNS;
        const unsigned column = segment + threadIdx.x % 32 * TAKEN;
        const unsigned last = min((group + 1) * unsigned(size), unsigned(rows));
        if (column >= unsigned(width)) continue;
        const bool words_alone = segment + COLUMNS <= unsigned(words);
        float offset[TAKEN] = {}, sums[TAKEN] = {};
#if BIAS
#pragma unroll
        for (int k = 0; k < TAKEN; ++k) offset[k] = bias[column + k];
#endif
        for (unsigned row = group * unsigned(size); row < last; row += ROWS) {
            Taken<LOGITS> taken[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                taken[r].load(logits, (unsigned long long)(min(row + r, unsigned(rows) - 1)) * unsigned(width) + column);
            RowNumbers numbers;
            unsigned normaliser[ROWS], share[ROWS];
            load_rows(lse + row, normaliser);
            load_rows(shares + row, share);
            load_rows(columns + row, numbers.target);
            bool plain = words_alone & (row + ROWS <= last);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                numbers.against[r] = __uint_as_float(normaliser[r]) * LOG2E;
                numbers.part[r] = __uint_as_float(share[r]) * by;
                plain &= numbers.target[r] - segment >= unsigned(COLUMNS);
            }
            if (plain)
                differentiate<true>(taken, out, row, ROWS, column, width, words, offset, numbers, table, knots, sums);
            else
                differentiate<false>(taken, out, row, last - row, column, width, words, offset, numbers, table, knots,
                                     sums);
        }
        if (summed) {
            float* collected = of_bias + (unsigned long long)(group) * unsigned(width) + column;
#pragma unroll
            for (int k = 0; k < TAKEN; ++k) collected[k] += sums[k] * back;
        }
    }
}
