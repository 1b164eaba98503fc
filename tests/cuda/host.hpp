// Runs the CUDA text of kernels on the CPU, for g++ on x86-64.
//
//     #include "host.hpp"                              // first
//     namespace a { <text of fovea_shaders::cuda_text> }
//     namespace b { <another text> }
//     int main() {
//         void* pointers[] = {x, out, &params};        // buffers in the order of their bindings, then the parameters
//         host::launch({groups_x, groups_y, groups_z}, lanes, a::fovea_main, pointers);
//     }
//
//     g++ -std=c++17 -O2 -march=native -ffp-contract=off -fno-strict-aliasing -w ...
//
// `launch` runs one workgroup after the other. An invocation is a fibre: a barrier switches to the next one. If not all
// invocations of a workgroup reach the same barrier, it prints an error and exits with 1. Before each workgroup, all
// workgroup memory is filled with 0xff, which is NaN: a kernel that reads what it has not written gives wrong numbers.
// Buffers must have the alignment of their elements, at most 16 bytes.

#pragma once

#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <setjmp.h>
#include <ucontext.h>
#include <utility>
#include <vector>

#define FOVEA_HOST
#define FOVEA_KERNEL static
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(LANES)
// A separate section, so that `workgroup` knows where it is. `used`: it also changes unseen by the compiler.
#define __shared__ __attribute__((section("fovea_shared"), used)) static
#define __syncthreads() host::barrier(__LINE__)

typedef _Float16 __half;

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

// The linker defines the ends of a section that exists.
__shared__ char any_workgroup_memory;
extern "C" char __start_fovea_shared[], __stop_fovea_shared[];

namespace host {

constexpr std::size_t STACK = 256 * 1024;
constexpr int START = 0, END = -1; // instead of the line of a barrier

struct Fibre {
    std::unique_ptr<char[]> stack;
    jmp_buf state;
    int line; // of the barrier at which it waits, or START or END
};

inline std::vector<Fibre> fibres;
inline unsigned current;
inline jmp_buf scheduler;
inline void (*body)(void*);
inline void* body_data;

[[noreturn]] inline void fail(const char* what, unsigned a, int line_a, unsigned b, int line_b) {
    std::fprintf(stderr, "%s: workgroup (%u, %u, %u): lane %u is at line %d, lane %u at line %d (-1: it has ended)\n",
        what, blockIdx.x, blockIdx.y, blockIdx.z, a, line_a, b, line_b);
    std::exit(1);
}

// Back to the scheduler, until all other fibres are at a barrier too.
inline void barrier(int line) {
    Fibre& fibre = fibres[current];
    fibre.line = line;
    if (_setjmp(fibre.state) == 0) {
        _longjmp(scheduler, 1);
    }
}

inline void first_steps() {
    body(body_data);
    fibres[current].line = END;
    _longjmp(scheduler, 1);
}

// Runs a fibre until its next barrier or its end.
inline void resume(unsigned lane) {
    current = lane;
    threadIdx = {lane, 0, 0};
    if (_setjmp(scheduler) != 0) {
        return;
    }
    Fibre& fibre = fibres[lane];
    if (fibre.line != START) {
        _longjmp(fibre.state, 1);
    }
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fibre.stack.get();
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, first_steps, 0);
    setcontext(&context);
}

inline void workgroup(unsigned lanes) {
    std::memset(__start_fovea_shared, 0xff, __stop_fovea_shared - __start_fovea_shared);
    for (unsigned lane = 0; lane < lanes; lane++) {
        fibres[lane].line = START;
    }
    do {
        for (unsigned lane = 0; lane < lanes; lane++) {
            resume(lane);
            if (fibres[lane].line != fibres[0].line) {
                fail("not all invocations reach the same barrier", 0, fibres[0].line, lane, fibres[lane].line);
            }
        }
    } while (fibres[0].line != END);
}

// Runs `run()` for each invocation of `grid` workgroups of `lanes` invocations.
template <class Run> void run(dim3 grid, unsigned lanes, Run run) {
    gridDim = grid;
    blockDim = {lanes, 1, 1};
    while (fibres.size() < lanes) {
        fibres.push_back({std::unique_ptr<char[]>(new char[STACK]), {}, START});
    }
    body = [](void* data) { (*static_cast<Run*>(data))(); };
    body_data = &run;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                workgroup(lanes);
            }
        }
    }
}

template <class... Parameters, std::size_t... I>
void cast_and_run(
    dim3 grid, unsigned lanes, void (*kernel)(Parameters...), void* const* pointers, std::index_sequence<I...>) {
    run(grid, lanes, [=] { kernel(static_cast<Parameters>(pointers[I])...); });
}

// Launches a kernel: `pointers` has one pointer per parameter.
template <class... Parameters>
void launch(dim3 grid, unsigned lanes, void (*kernel)(Parameters...), void* const* pointers) {
    cast_and_run(grid, lanes, kernel, pointers, std::index_sequence_for<Parameters...>());
}

} // namespace host

// What CUDA has and <cmath> does not.

inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __uint_as_float(unsigned a) {
    float b;
    std::memcpy(&b, &a, 4);
    return b;
}
inline unsigned __float_as_uint(float a) {
    unsigned b;
    std::memcpy(&b, &a, 4);
    return b;
}
inline int __float2int_rz(float a) {
    return a != a ? 0 : a >= 2147483648.0f ? INT_MAX : a < -2147483648.0f ? INT_MIN : static_cast<int>(a);
}
inline unsigned __float2uint_rz(float a) {
    return !(a > 0.0f) ? 0u : a >= 4294967296.0f ? UINT_MAX : static_cast<unsigned>(a);
}
inline __half __hmin(__half a, __half b) { return b != b || a < b ? a : b; }
inline __half __hmax(__half a, __half b) { return b != b || a > b ? a : b; }

// Atomics: only one invocation runs at a time.
template <class T, class F> T host_atomic(T* a, F new_value) {
    T old = *a;
    *a = new_value(old);
    return old;
}
template <class T> T atomicAdd(T* a, T b) {
    return host_atomic(a, [=](T old) { return T(unsigned(old) + unsigned(b)); });
}
template <class T> T atomicSub(T* a, T b) {
    return host_atomic(a, [=](T old) { return T(unsigned(old) - unsigned(b)); });
}
template <class T> T atomicMin(T* a, T b) { return host_atomic(a, [=](T old) { return old < b ? old : b; }); }
template <class T> T atomicMax(T* a, T b) { return host_atomic(a, [=](T old) { return old > b ? old : b; }); }
template <class T> T atomicAnd(T* a, T b) { return host_atomic(a, [=](T old) { return T(old & b); }); }
template <class T> T atomicOr(T* a, T b) { return host_atomic(a, [=](T old) { return T(old | b); }); }
template <class T> T atomicXor(T* a, T b) { return host_atomic(a, [=](T old) { return T(old ^ b); }); }
template <class T> T atomicExch(T* a, T b) { return host_atomic(a, [=](T) { return b; }); }
