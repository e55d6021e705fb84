/* How a function that stands in a header is declared: one definition for C, and under nvcc for the
 * host and the device alike. */
#ifndef IMP_BASE_INLINE_H
#define IMP_BASE_INLINE_H

#ifdef __CUDACC__
#define INLINE_FN static __host__ __device__ __forceinline__
#else
#define INLINE_FN static inline
#endif

#endif
