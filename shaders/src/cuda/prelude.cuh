// Types and functions of WGSL for the CUDA text of a kernel. For NVRTC, without any header; and for g++ after
// tests/cuda/host.hpp.
//
// Arithmetic is that of WGSL: integers wrap, x / 0 is x and x % 0 is 0, a shift uses the low five bits of its right
// operand, a float that is converted to an integer saturates (at 2^31 - 1, where WGSL has the largest f32 below it).

// A kernel text in its own namespace has no C linkage: see tests/cuda/host.hpp.
#ifndef FOVEA_KERNEL
#define FOVEA_KERNEL extern "C" __global__
#endif

#define FOVEA_FN __device__ __forceinline__

namespace wgsl {

typedef unsigned int u32;
typedef int i32;
typedef float f32;

// Vectors and matrices with the sizes and alignments of WGSL, except that vec3 has the alignment of its elements: the
// translator refuses vec3 in memory. A vector in memory is read and written by one instruction.

template <class T> struct alignas(2 * sizeof(T)) vec2 {
    T x, y;
    vec2() = default;
    FOVEA_FN vec2(T x, T y) : x(x), y(y) {}
};

template <class T> struct vec3 {
    T x, y, z;
    vec3() = default;
    FOVEA_FN vec3(T x, T y, T z) : x(x), y(y), z(z) {}
    FOVEA_FN vec3(vec2<T> a, T z) : x(a.x), y(a.y), z(z) {}
    FOVEA_FN vec3(T x, vec2<T> b) : x(x), y(b.x), z(b.y) {}
};

template <class T> struct alignas(4 * sizeof(T)) vec4 {
    T x, y, z, w;
    vec4() = default;
    FOVEA_FN vec4(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
    FOVEA_FN vec4(vec2<T> a, vec2<T> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
    FOVEA_FN vec4(vec2<T> a, T z, T w) : x(a.x), y(a.y), z(z), w(w) {}
    FOVEA_FN vec4(T x, vec2<T> b, T w) : x(x), y(b.x), z(b.y), w(w) {}
    FOVEA_FN vec4(T x, T y, vec2<T> c) : x(x), y(y), z(c.x), w(c.y) {}
    FOVEA_FN vec4(vec3<T> a, T w) : x(a.x), y(a.y), z(a.z), w(w) {}
    FOVEA_FN vec4(T x, vec3<T> b) : x(x), y(b.x), z(b.y), w(b.z) {}
};

// Four columns of four rows.
template <class T> struct mat4x4 {
    vec4<T> c0, c1, c2, c3;
};

template <class T, u32 N> struct array {
    T items[N];
    FOVEA_FN T& operator[](u32 i) { return items[i]; }
    FOVEA_FN const T& operator[](u32 i) const { return items[i]; }
};

template <u32 N, class T> FOVEA_FN auto splat(T a) {
    if constexpr (N == 2) {
        return vec2<T>(a, a);
    } else if constexpr (N == 3) {
        return vec3<T>(a, a, a);
    } else {
        return vec4<T>(a, a, a, a);
    }
}

// Component i of a vector or matrix in registers, without an address: an address would move it to memory.
template <class T> FOVEA_FN T at(vec2<T> v, u32 i) { return i == 0u ? v.x : v.y; }
template <class T> FOVEA_FN T at(vec3<T> v, u32 i) { return i == 0u ? v.x : i == 1u ? v.y : v.z; }
template <class T> FOVEA_FN T at(vec4<T> v, u32 i) { return i == 0u ? v.x : i == 1u ? v.y : i == 2u ? v.z : v.w; }
template <class T> FOVEA_FN vec4<T> at(const mat4x4<T>& m, u32 i) {
    return vec4<T>(
        at(vec4<T>(m.c0.x, m.c1.x, m.c2.x, m.c3.x), i), at(vec4<T>(m.c0.y, m.c1.y, m.c2.y, m.c3.y), i),
        at(vec4<T>(m.c0.z, m.c1.z, m.c2.z, m.c3.z), i), at(vec4<T>(m.c0.w, m.c1.w, m.c2.w, m.c3.w), i));
}

// Writes component i of a vector in registers.
template <class T> FOVEA_FN void put(vec2<T>& v, u32 i, T a) {
    v = vec2<T>(i == 0u ? a : v.x, i == 1u ? a : v.y);
}
template <class T> FOVEA_FN void put(vec3<T>& v, u32 i, T a) {
    v = vec3<T>(i == 0u ? a : v.x, i == 1u ? a : v.y, i == 2u ? a : v.z);
}
template <class T> FOVEA_FN void put(vec4<T>& v, u32 i, T a) {
    v = vec4<T>(i == 0u ? a : v.x, i == 1u ? a : v.y, i == 2u ? a : v.z, i == 3u ? a : v.w);
}

// Component i of a vector in memory.
template <class T> FOVEA_FN T& component(vec2<T>& v, u32 i) { return reinterpret_cast<T*>(&v)[i]; }
template <class T> FOVEA_FN T& component(vec4<T>& v, u32 i) { return reinterpret_cast<T*>(&v)[i]; }
template <class T> FOVEA_FN const T& component(const vec2<T>& v, u32 i) { return reinterpret_cast<const T*>(&v)[i]; }
template <class T> FOVEA_FN const T& component(const vec4<T>& v, u32 i) { return reinterpret_cast<const T*>(&v)[i]; }

template <u32 I, class V> FOVEA_FN auto get(V v) {
    if constexpr (I == 0) {
        return v.x;
    } else if constexpr (I == 1) {
        return v.y;
    } else if constexpr (I == 2) {
        return v.z;
    } else {
        return v.w;
    }
}
template <u32 A, u32 B, class T, template <class> class V> FOVEA_FN vec2<T> swizzle(V<T> v) {
    return vec2<T>(get<A>(v), get<B>(v));
}
template <u32 A, u32 B, u32 C, class T, template <class> class V> FOVEA_FN vec3<T> swizzle(V<T> v) {
    return vec3<T>(get<A>(v), get<B>(v), get<C>(v));
}
template <u32 A, u32 B, u32 C, u32 D, class T, template <class> class V> FOVEA_FN vec4<T> swizzle(V<T> v) {
    return vec4<T>(get<A>(v), get<B>(v), get<C>(v), get<D>(v));
}

// Arithmetic of scalars. Signed integers wrap, so they are calculated as unsigned ones.

template <class T> FOVEA_FN T plus(T a, T b) { return a + b; }
template <class T> FOVEA_FN T minus(T a, T b) { return a - b; }
template <class T> FOVEA_FN T times(T a, T b) { return a * b; }
template <class T> FOVEA_FN T over(T a, T b) { return a / b; }
template <class T> FOVEA_FN T negative(T a) { return -a; }
template <> FOVEA_FN i32 plus(i32 a, i32 b) { return i32(u32(a) + u32(b)); }
template <> FOVEA_FN i32 minus(i32 a, i32 b) { return i32(u32(a) - u32(b)); }
template <> FOVEA_FN i32 times(i32 a, i32 b) { return i32(u32(a) * u32(b)); }
template <> FOVEA_FN i32 negative(i32 a) { return i32(0u - u32(a)); }

// The divisor, or 1 where WGSL returns the dividend.
FOVEA_FN u32 divisor(u32 a, u32 b) { return b == 0u ? 1u : b; }
FOVEA_FN i32 divisor(i32 a, i32 b) { return b == 0 || (b == -1 && u32(a) == 0x80000000u) ? 1 : b; }
template <> FOVEA_FN u32 over(u32 a, u32 b) { return a / divisor(a, b); }
template <> FOVEA_FN i32 over(i32 a, i32 b) { return a / divisor(a, b); }
FOVEA_FN u32 rest(u32 a, u32 b) { return a % divisor(a, b); }
FOVEA_FN i32 rest(i32 a, i32 b) { return a % divisor(a, b); }

FOVEA_FN u32 left(u32 a, u32 b) { return a << (b & 31u); }
FOVEA_FN i32 left(i32 a, u32 b) { return i32(u32(a) << (b & 31u)); }
template <class T> FOVEA_FN T right(T a, u32 b) { return a >> (b & 31u); }

template <class T> FOVEA_FN T conjunction(T a, T b) { return a & b; }
template <class T> FOVEA_FN T disjunction(T a, T b) { return a | b; }
template <class T> FOVEA_FN T difference(T a, T b) { return a ^ b; }
template <class T> FOVEA_FN T complement(T a) { return ~a; }
template <class T> FOVEA_FN bool equal(T a, T b) { return a == b; }
template <class T> FOVEA_FN bool unequal(T a, T b) { return a != b; }
template <class T> FOVEA_FN bool less(T a, T b) { return a < b; }
template <class T> FOVEA_FN bool at_most(T a, T b) { return a <= b; }
template <class T> FOVEA_FN bool greater(T a, T b) { return a > b; }
template <class T> FOVEA_FN bool at_least(T a, T b) { return a >= b; }

// Functions of WGSL for scalars.

FOVEA_FN f32 abs(f32 a) { return fabsf(a); }
FOVEA_FN i32 abs(i32 a) { return a < 0 ? negative(a) : a; }
FOVEA_FN u32 abs(u32 a) { return a; }
FOVEA_FN f32 min(f32 a, f32 b) { return fminf(a, b); }
FOVEA_FN i32 min(i32 a, i32 b) { return a < b ? a : b; }
FOVEA_FN u32 min(u32 a, u32 b) { return a < b ? a : b; }
FOVEA_FN f32 max(f32 a, f32 b) { return fmaxf(a, b); }
FOVEA_FN i32 max(i32 a, i32 b) { return a > b ? a : b; }
FOVEA_FN u32 max(u32 a, u32 b) { return a > b ? a : b; }
template <class T> FOVEA_FN T clamp(T a, T low, T high) { return min(max(a, low), high); }
FOVEA_FN f32 ceil(f32 a) { return ceilf(a); }
FOVEA_FN f32 floor(f32 a) { return floorf(a); }
FOVEA_FN f32 round(f32 a) { return rintf(a); }
FOVEA_FN f32 trunc(f32 a) { return truncf(a); }
FOVEA_FN f32 exp(f32 a) { return expf(a); }
FOVEA_FN f32 exp2(f32 a) { return exp2f(a); }
FOVEA_FN f32 log(f32 a) { return logf(a); }
FOVEA_FN f32 log2(f32 a) { return log2f(a); }
FOVEA_FN f32 sqrt(f32 a) { return sqrtf(a); }
FOVEA_FN f32 inverseSqrt(f32 a) { return rsqrtf(a); }
FOVEA_FN f32 tanh(f32 a) { return tanhf(a); }
FOVEA_FN f32 fma(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }
template <class T> FOVEA_FN T select(T reject, T accept, bool condition) { return condition ? accept : reject; }

// The conversions and `bitcast` of WGSL for scalars.
template <class To, class From> struct same { static constexpr bool value = false; };
template <class T> struct same<T, T> { static constexpr bool value = true; };

template <class To, class From> FOVEA_FN To convert(From a) {
    if constexpr (same<From, f32>::value && same<To, i32>::value) {
        return __float2int_rz(a);
    } else if constexpr (same<From, f32>::value && same<To, u32>::value) {
        return __float2uint_rz(a);
    } else {
        return To(a);
    }
}

template <class To, class From> FOVEA_FN To bits(From a) {
    static_assert(sizeof(To) == 4 && sizeof(From) == 4, "bits of 32-bit scalars");
    if constexpr (same<From, f32>::value && !same<To, f32>::value) {
        return To(__float_as_uint(a));
    } else if constexpr (same<To, f32>::value && !same<From, f32>::value) {
        return __uint_as_float(u32(a));
    } else {
        return To(a);
    }
}

// The same by component.

#define FOVEA_ONE(NAME, FUNCTION)                                                                                      \
    template <class T> FOVEA_FN vec2<T> NAME(vec2<T> a) { return vec2<T>(FUNCTION(a.x), FUNCTION(a.y)); }              \
    template <class T> FOVEA_FN vec3<T> NAME(vec3<T> a) {                                                              \
        return vec3<T>(FUNCTION(a.x), FUNCTION(a.y), FUNCTION(a.z));                                                   \
    }                                                                                                                  \
    template <class T> FOVEA_FN vec4<T> NAME(vec4<T> a) {                                                              \
        return vec4<T>(FUNCTION(a.x), FUNCTION(a.y), FUNCTION(a.z), FUNCTION(a.w));                                    \
    }

#define FOVEA_TWO(NAME, FUNCTION, A, B, RESULT)                                                                        \
    template <class T> FOVEA_FN vec2<RESULT> NAME(vec2<A> a, vec2<B> b) {                                              \
        return vec2<RESULT>(FUNCTION(a.x, b.x), FUNCTION(a.y, b.y));                                                   \
    }                                                                                                                  \
    template <class T> FOVEA_FN vec3<RESULT> NAME(vec3<A> a, vec3<B> b) {                                              \
        return vec3<RESULT>(FUNCTION(a.x, b.x), FUNCTION(a.y, b.y), FUNCTION(a.z, b.z));                               \
    }                                                                                                                  \
    template <class T> FOVEA_FN vec4<RESULT> NAME(vec4<A> a, vec4<B> b) {                                              \
        return vec4<RESULT>(FUNCTION(a.x, b.x), FUNCTION(a.y, b.y), FUNCTION(a.z, b.z), FUNCTION(a.w, b.w));           \
    }

#define FOVEA_THREE(NAME, C)                                                                                           \
    template <class T> FOVEA_FN vec2<T> NAME(vec2<T> a, vec2<T> b, vec2<C> c) {                                        \
        return vec2<T>(NAME(a.x, b.x, c.x), NAME(a.y, b.y, c.y));                                                      \
    }                                                                                                                  \
    template <class T> FOVEA_FN vec3<T> NAME(vec3<T> a, vec3<T> b, vec3<C> c) {                                        \
        return vec3<T>(NAME(a.x, b.x, c.x), NAME(a.y, b.y, c.y), NAME(a.z, b.z, c.z));                                 \
    }                                                                                                                  \
    template <class T> FOVEA_FN vec4<T> NAME(vec4<T> a, vec4<T> b, vec4<C> c) {                                        \
        return vec4<T>(NAME(a.x, b.x, c.x), NAME(a.y, b.y, c.y), NAME(a.z, b.z, c.z), NAME(a.w, b.w, c.w));            \
    }

FOVEA_ONE(operator-, negative)
FOVEA_ONE(operator~, complement)
FOVEA_TWO(operator+, plus, T, T, T)
FOVEA_TWO(operator-, minus, T, T, T)
FOVEA_TWO(operator*, times, T, T, T)
FOVEA_TWO(operator/, over, T, T, T)
FOVEA_TWO(operator%, rest, T, T, T)
FOVEA_TWO(operator&, conjunction, T, T, T)
FOVEA_TWO(operator|, disjunction, T, T, T)
FOVEA_TWO(operator^, difference, T, T, T)
FOVEA_TWO(operator<<, left, T, u32, T)
FOVEA_TWO(operator>>, right, T, u32, T)
FOVEA_TWO(operator==, equal, T, T, bool)
FOVEA_TWO(operator!=, unequal, T, T, bool)
FOVEA_TWO(operator<, less, T, T, bool)
FOVEA_TWO(operator<=, at_most, T, T, bool)
FOVEA_TWO(operator>, greater, T, T, bool)
FOVEA_TWO(operator>=, at_least, T, T, bool)

FOVEA_ONE(abs, abs)
FOVEA_ONE(ceil, ceil)
FOVEA_ONE(floor, floor)
FOVEA_ONE(round, round)
FOVEA_ONE(trunc, trunc)
FOVEA_ONE(exp, exp)
FOVEA_ONE(exp2, exp2)
FOVEA_ONE(log, log)
FOVEA_ONE(log2, log2)
FOVEA_ONE(sqrt, sqrt)
FOVEA_ONE(inverseSqrt, inverseSqrt)
FOVEA_ONE(tanh, tanh)
FOVEA_TWO(min, min, T, T, T)
FOVEA_TWO(max, max, T, T, T)
FOVEA_THREE(clamp, T)
FOVEA_THREE(fma, T)
FOVEA_THREE(select, bool)

template <class To, class From> FOVEA_FN vec2<To> convert(vec2<From> a) {
    return vec2<To>(convert<To>(a.x), convert<To>(a.y));
}
template <class To, class From> FOVEA_FN vec3<To> convert(vec3<From> a) {
    return vec3<To>(convert<To>(a.x), convert<To>(a.y), convert<To>(a.z));
}
template <class To, class From> FOVEA_FN vec4<To> convert(vec4<From> a) {
    return vec4<To>(convert<To>(a.x), convert<To>(a.y), convert<To>(a.z), convert<To>(a.w));
}
template <class To, class From> FOVEA_FN vec2<To> bits(vec2<From> a) { return vec2<To>(bits<To>(a.x), bits<To>(a.y)); }
template <class To, class From> FOVEA_FN vec3<To> bits(vec3<From> a) {
    return vec3<To>(bits<To>(a.x), bits<To>(a.y), bits<To>(a.z));
}
template <class To, class From> FOVEA_FN vec4<To> bits(vec4<From> a) {
    return vec4<To>(bits<To>(a.x), bits<To>(a.y), bits<To>(a.z), bits<To>(a.w));
}

// Products with a scalar, of vectors, and of matrices.

template <class T> FOVEA_FN vec2<T> operator*(vec2<T> a, T b) { return a * splat<2>(b); }
template <class T> FOVEA_FN vec3<T> operator*(vec3<T> a, T b) { return a * splat<3>(b); }
template <class T> FOVEA_FN vec4<T> operator*(vec4<T> a, T b) { return a * splat<4>(b); }
template <class T> FOVEA_FN vec2<T> operator*(T a, vec2<T> b) { return splat<2>(a) * b; }
template <class T> FOVEA_FN vec3<T> operator*(T a, vec3<T> b) { return splat<3>(a) * b; }
template <class T> FOVEA_FN vec4<T> operator*(T a, vec4<T> b) { return splat<4>(a) * b; }

template <class T> FOVEA_FN T dot(vec2<T> a, vec2<T> b) { return plus(times(a.x, b.x), times(a.y, b.y)); }
template <class T> FOVEA_FN T dot(vec3<T> a, vec3<T> b) {
    return plus(plus(times(a.x, b.x), times(a.y, b.y)), times(a.z, b.z));
}
template <class T> FOVEA_FN T dot(vec4<T> a, vec4<T> b) {
    return plus(plus(plus(times(a.x, b.x), times(a.y, b.y)), times(a.z, b.z)), times(a.w, b.w));
}

template <class T> FOVEA_FN mat4x4<T> operator+(mat4x4<T> a, mat4x4<T> b) {
    return mat4x4<T>{a.c0 + b.c0, a.c1 + b.c1, a.c2 + b.c2, a.c3 + b.c3};
}
template <class T> FOVEA_FN vec4<T> operator*(mat4x4<T> a, vec4<T> b) {
    return a.c0 * b.x + a.c1 * b.y + a.c2 * b.z + a.c3 * b.w;
}
template <class T> FOVEA_FN vec4<T> operator*(vec4<T> a, mat4x4<T> b) {
    return vec4<T>(dot(a, b.c0), dot(a, b.c1), dot(a, b.c2), dot(a, b.c3));
}
template <class T> FOVEA_FN mat4x4<T> transpose(mat4x4<T> a) {
    return mat4x4<T>{
        vec4<T>(a.c0.x, a.c1.x, a.c2.x, a.c3.x), vec4<T>(a.c0.y, a.c1.y, a.c2.y, a.c3.y),
        vec4<T>(a.c0.z, a.c1.z, a.c2.z, a.c3.z), vec4<T>(a.c0.w, a.c1.w, a.c2.w, a.c3.w)};
}

// The sum of the products of four bytes with a sign.
FOVEA_FN i32 dot4I8Packed(u32 a, u32 b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 610
    return __dp4a(i32(a), i32(b), 0);
#else
    i32 sum = 0;
    for (u32 shift = 0u; shift < 32u; shift += 8u) {
        sum += (i32(a << (24u - shift)) >> 24) * (i32(b << (24u - shift)) >> 24);
    }
    return sum;
#endif
}

// Atomics in workgroup memory, relaxed as in WGSL.
template <class T> FOVEA_FN T atomic_load(const T& a) { return *const_cast<const volatile T*>(&a); }
template <class T> FOVEA_FN void atomic_store(T& a, T value) { *const_cast<volatile T*>(&a) = value; }

FOVEA_FN vec3<u32> workgroup_id() { return vec3<u32>(blockIdx.x, blockIdx.y, blockIdx.z); }
FOVEA_FN vec3<u32> num_workgroups() { return vec3<u32>(gridDim.x, gridDim.y, gridDim.z); }
FOVEA_FN vec3<u32> local_invocation_id() { return vec3<u32>(threadIdx.x, 0u, 0u); }
FOVEA_FN vec3<u32> global_invocation_id() {
    return vec3<u32>(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y, blockIdx.z);
}

} // namespace wgsl

using namespace wgsl;

