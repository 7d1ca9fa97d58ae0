/* Feature detection: cpuid with xgetbv on x86-64, the auxiliary vector on aarch64. */
#include "base/cpu.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static const char *const level_names[CVQ_CPU_LEVELS] = {
    [CVQ_CPU_SCALAR] = "scalar",         [CVQ_CPU_AVX2] = "avx2",
    [CVQ_CPU_AVXVNNI] = "avxvnni",       [CVQ_CPU_AVX512] = "avx512",
    [CVQ_CPU_AVX512BF16] = "avx512bf16", [CVQ_CPU_NEON] = "neon",
    [CVQ_CPU_DOTPROD] = "dotprod",       [CVQ_CPU_I8MM] = "i8mm",
};

const char *cvq_cpu_level_name(cvq_cpu_level level) {
    return (unsigned)level < CVQ_CPU_LEVELS ? level_names[level] : "unknown";
}

#if defined(__x86_64__)

static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool bit(uint32_t word, unsigned n) {
    return (word >> n & 1) != 0;
}

static unsigned detect(void) {
    unsigned a, b, c, d, levels = 1u << CVQ_CPU_SCALAR;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return levels;
    bool osxsave = bit(c, 27), fma = bit(c, 12), f16c = bit(c, 29), avx = bit(c, 28);
    if (!osxsave || !avx) return levels;
    uint64_t state = enabled_state();
    bool ymm = (state & 0x06) == 0x06, zmm = (state & 0xe6) == 0xe6;
    unsigned b7, c7, d7, a71 = 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return levels;
    if (a >= 1) __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    if (!(ymm && bit(b7, 5) && fma && f16c)) return levels;
    levels |= 1u << CVQ_CPU_AVX2;
    bool avxvnni = bit(a71, 4);
    bool f = bit(b7, 16), dq = bit(b7, 17), bw = bit(b7, 30), vl = bit(b7, 31), vnni = bit(c7, 11);
#ifdef CVQ_EVEX /* a build for tests: see runtime/kernels/vnni_ymm.h */
    avxvnni = zmm && f && vl && vnni;
#endif
    if (avxvnni) levels |= 1u << CVQ_CPU_AVXVNNI;
    if (zmm && f && dq && bw && vl && vnni) {
        levels |= 1u << CVQ_CPU_AVX512;
        if (bit(a71, 5)) levels |= 1u << CVQ_CPU_AVX512BF16;
    }
    return levels;
}

#elif defined(__aarch64__)

static unsigned detect(void) {
    unsigned levels = 1u << CVQ_CPU_SCALAR | 1u << CVQ_CPU_NEON;
#if defined(__linux__)
    bool dotprod = (getauxval(AT_HWCAP) >> 20 & 1) != 0,
         i8mm = (getauxval(AT_HWCAP2) >> 13 & 1) != 0;
#elif defined(__APPLE__)
    int v = 0, w = 0;
    size_t n = sizeof v;
    bool dotprod = sysctlbyname("hw.optional.arm.FEAT_DotProd", &v, &n, NULL, 0) == 0 && v;
    n = sizeof w;
    bool i8mm = sysctlbyname("hw.optional.arm.FEAT_I8MM", &w, &n, NULL, 0) == 0 && w;
#else
    bool dotprod = false, i8mm = false;
#endif
    if (dotprod) levels |= 1u << CVQ_CPU_DOTPROD;
    if (dotprod && i8mm) levels |= 1u << CVQ_CPU_I8MM;
    return levels;
}

#else

static unsigned detect(void) {
    return 1u << CVQ_CPU_SCALAR;
}

#endif

bool cvq_cpu_has(cvq_cpu_level level) {
    return (unsigned)level < CVQ_CPU_LEVELS && (detect() >> level & 1) != 0;
}

cvq_cpu_level cvq_cpu_best(void) {
    static const cvq_cpu_level order[] = {CVQ_CPU_AVX512BF16, CVQ_CPU_AVX512, CVQ_CPU_AVXVNNI,
                                          CVQ_CPU_AVX2,       CVQ_CPU_I8MM,   CVQ_CPU_DOTPROD,
                                          CVQ_CPU_NEON};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (cvq_cpu_has(order[i])) return order[i];
    return CVQ_CPU_SCALAR;
}

cvq_status cvq_cpu_level_find(cvq_cpu_level *level, const char *name, cvq_error *err) {
    if (!name) {
        *level = cvq_cpu_best();
        return CVQ_OK;
    }
    char list[128] = "";
    for (int i = 0; i < CVQ_CPU_LEVELS; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            if (cvq_cpu_has((cvq_cpu_level)i)) {
                *level = (cvq_cpu_level)i;
                return CVQ_OK;
            }
            list[0] = 0; /* those of this machine in place of all */
            for (int j = 0; j < CVQ_CPU_LEVELS; j++) {
                if (!cvq_cpu_has((cvq_cpu_level)j)) continue;
                size_t n = strlen(list);
                snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", level_names[j]);
            }
            return cvq_fail(err, CVQ_UNSUPPORTED, name, "this machine lacks it; it has %s", list);
        }
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", level_names[i]);
    }
    return cvq_fail(err, CVQ_INVALID_ARGUMENT, name, "not a level of instructions; there are %s",
                    list);
}

const char *cvq_cpu_model(void) {
    static char model[49]; /* written once with the same bytes, whoever comes first */
#if defined(__x86_64__)
    unsigned words[12];
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u) return "unknown";
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                    &words[4 * i + 3]);
    char text[49];
    memcpy(text, words, 48);
    text[48] = 0;
    size_t n = strlen(text), start = strspn(text, " ");
    while (n > start && text[n - 1] == ' ') text[--n] = 0;
    memcpy(model, text + start, n - start + 1);
    return model;
#elif defined(__APPLE__)
    size_t n = sizeof model;
    return sysctlbyname("machdep.cpu.brand_string", model, &n, NULL, 0) == 0 ? model : "unknown";
#else
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[128], part[32] = "";
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "CPU part", 8) == 0 && sscanf(line, "CPU part : %31s", part) == 1) break;
    if (f) fclose(f);
    if (!part[0]) return "unknown";
    snprintf(model, sizeof model, "ARM part %s", part);
    return model;
#endif
}
