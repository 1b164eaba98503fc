// f16 of WGSL: CUDA's __half. Only for kernels that use it, because the header takes long to compile.

#ifndef FOVEA_HOST
#include <cuda_fp16.h>
#endif

namespace wgsl {

typedef __half f16;

__device__ __forceinline__ f16 min(f16 a, f16 b) { return __hmin(a, b); }
__device__ __forceinline__ f16 max(f16 a, f16 b) { return __hmax(a, b); }

} // namespace wgsl

