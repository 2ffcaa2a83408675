// XLATE_EVERYWHERE: marks functions that both the host and kernels call.
#pragma once

#ifdef __CUDACC__
#define XLATE_EVERYWHERE __host__ __device__
#else
#define XLATE_EVERYWHERE
#endif
