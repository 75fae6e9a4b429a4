// What the kernels of a PLIF share (knots.cu, plif.cu): logits in 16 bytes at a time, the piece that a logit is on, and
// where the logits of a call are.
//
// Defines: LOGITS and GRADIENT (types: 0 float32, 1 bfloat16, 2 float16), BIAS (0 or 1).

#ifdef CUDA_ON_CPU
inline float half_to_float(unsigned short bits) { return cuda_on_cpu::from_half(bits); }
inline float add_down(float a, float b) { return std::floor(a) + b; }
#else
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
__device__ __forceinline__ float add_down(float a, float b) {
    float sum;
    asm("add.rm.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
    return sum;
}
#endif

// Elements that a thread takes from a row at a time: 16 bytes of the narrower type, or of float32.
#if LOGITS == 0 || GRADIENT == 0
constexpr int TAKEN = 4;
#else
constexpr int TAKEN = 8;
#endif
constexpr int AT_ONCE = 4;              // elements whose look-ups or atomics are under way together
constexpr int COLUMNS = 32 * TAKEN;     // that a warp takes from a row at a time
constexpr float INTEGERS = 8388608.0f;  // 2^23: from here on float32 has the integers alone
constexpr int INTEGERS_BITS = 0x4b000000;

template <int TYPE>
struct Taken {
    static constexpr int WORDS = TYPE == 0 ? TAKEN : TAKEN / 2;
    unsigned word[WORDS];

    __device__ __forceinline__ void load(const void* from, unsigned long long element) {
        const char* at = static_cast<const char*>(from) + element * (TYPE == 0 ? 4 : 2);
        if constexpr (WORDS == 4) {
            const uint4 v = *reinterpret_cast<const uint4*>(at);
            word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w;
        } else {
            const uint2 v = *reinterpret_cast<const uint2*>(at);
            word[0] = v.x, word[1] = v.y;
        }
    }

    __device__ __forceinline__ void store(void* to, unsigned long long element) const {
        char* at = static_cast<char*>(to) + element * (TYPE == 0 ? 4 : 2);
        if constexpr (WORDS == 4) {
            *reinterpret_cast<uint4*>(at) = make_uint4(word[0], word[1], word[2], word[3]);
        } else {
            *reinterpret_cast<uint2*>(at) = make_uint2(word[0], word[1]);
        }
    }

    __device__ __forceinline__ float value(int k) const {
        if constexpr (TYPE == 0) return __uint_as_float(word[k]);
        const unsigned pair = word[k / 2];
        if constexpr (TYPE == 1) return __uint_as_float(k % 2 ? pair & 0xffff0000u : pair << 16);
        return half_to_float((unsigned short)(k % 2 ? pair >> 16 : pair & 0xffffu));
    }
};

__device__ __forceinline__ float single(const void* from, unsigned long long element) {
    if constexpr (LOGITS == 0) return static_cast<const float*>(from)[element];
    const unsigned short bits = static_cast<const unsigned short*>(from)[element];
    return LOGITS == 1 ? __uint_as_float(unsigned(bits) << 16) : half_to_float(bits);
}

// A PLIF's knots. A logit's place is q = (z + bound) per_unit: the floor of q is its piece, the rest its distance from
// the left knot in lengths of a piece. Every kernel finds it by the same two roundings, so that none takes a neighbour.
struct Knots {
    int count;
    float bound, per_unit, length;

    __device__ __forceinline__ float place(float z) const { return (z + bound) * per_unit; }
};

// Where a sample of the logits is, in pieces.
struct Sample {
    float centre, spread;  // mean and standard deviation
};

// Take the sample and lay out the bias: `padded` [width] gets the bias [words]; one block of a power of two threads.
//
// `logits` [rows, width] are those of the first chunk.
extern "C" __global__ void __launch_bounds__(1024, 1)
locate(const void* __restrict__ logits, const float* __restrict__ bias, float* padded, Sample* sample, int rows,
       int width, int words, float bound, float per_unit) {
    __shared__ float total[1024], squares[1024];
    const int me = threadIdx.x, threads = blockDim.x;
    float mean = 0.0f, square = 0.0f;
    // Rows are taken evenly, columns by a hash, so that none is left out.
    for (int i = 0; i < 4; ++i) {
        const unsigned number = unsigned(i * threads + me);
        const unsigned long long row = (unsigned long long)(number) * unsigned(rows) / unsigned(4 * threads);
        const unsigned column = number * 2654435761u % unsigned(words);
        float z = single(logits, row * unsigned(width) + column);
#if BIAS
        z += bias[column];
#endif
        z = fminf(fmaxf(z, -bound), bound);
        mean += z, square += z * z;
    }
#if BIAS
    for (int i = me; i < width; i += threads) padded[i] = i < words ? bias[i] : 0.0f;
#endif
    total[me] = mean, squares[me] = square;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (me < half) {
            total[me] += total[me + half];
            squares[me] += squares[me + half];
        }
    }
    if (me == 0) {
        mean = total[0] / float(4 * threads);
        sample->centre = (mean + bound) * per_unit;
        sample->spread = sqrtf(fmaxf(squares[0] / float(4 * threads) - mean * mean, 0.0f)) * per_unit;
    }
}
