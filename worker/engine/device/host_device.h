// Marks a function that device code calls too. Where no CUDA compiler reads it, it says nothing.
#pragma once

#ifdef __CUDACC__
#define LWQ_HOST_DEVICE __host__ __device__
#else
#define LWQ_HOST_DEVICE
#endif
