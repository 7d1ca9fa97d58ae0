/* The declarations of all kernels of this architecture, from the list. Read only inside this
 * folder. */
#ifndef CVQ_RUNTIME_KERNELS_KERNELS_INTERNAL_H
#define CVQ_RUNTIME_KERNELS_KERNELS_INTERNAL_H

#include "runtime/kernels/kernels.h"

#define KERNEL(set, type, entry, function) type function;
#include "runtime/kernels/kernels_list.inc"
#undef KERNEL

#define CVQ_ACT_TINY 0x1p-100f /* quantize_rows: blocks below this become zeros */

#endif
