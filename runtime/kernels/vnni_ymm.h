/* vpdpbusd on ymm registers, for the assembly of AVX-VNNI's kernels. Built with -DCVQ_EVEX they use
 * the form that AVX-512 VNNI has of it, and base/cpu.c takes processors with that for ones with
 * AVX-VNNI: the same source is tested where AVX-VNNI is lacking. */
#ifndef CVQ_RUNTIME_KERNELS_VNNI_YMM_H
#define CVQ_RUNTIME_KERNELS_VNNI_YMM_H

#ifdef CVQ_EVEX
#define VPDPBUSD "%{evex%} vpdpbusd"
#else
#define VPDPBUSD "%{vex%} vpdpbusd"
#endif

#endif
