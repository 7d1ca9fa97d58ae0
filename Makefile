# cvq: CogVLM2 on a CPU. `make help` lists what can be made.
# B is the build folder (one per set of flags), V=1 shows the commands.
B ?= build
V ?= 0
CC ?= gcc
PKG_CONFIG ?= pkg-config
PACKAGES := libzstd libcjson libpcre2-8 libcrypto

ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
OPTIMIZE ?= -O3 -g
# Contraction off: results must not depend on what a compiler fuses (fused operations are written out).
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -I. -Iinclude $(WARNINGS) $(OPTIMIZE) -ffp-contract=off -fno-math-errno -fopenmp -MMD -MP \
  $(shell $(PKG_CONFIG) --cflags $(PACKAGES)) $(CFLAGS)
LIBS = $(shell $(PKG_CONFIG) --libs $(PACKAGES)) -lm
LDFLAGS_ALL = -fopenmp $(LDFLAGS)

# Only a kernel file gets its instruction set's flags, by the end of its name.
FLAGS_avx2 := -mavx2 -mfma -mf16c
FLAGS_avxvnni := $(FLAGS_avx2) -mavxvnni
FLAGS_avx512 := $(FLAGS_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
FLAGS_avx512bf16 := $(FLAGS_avx512) -mavx512bf16
FLAGS_dotprod := -march=armv8.2-a+dotprod
FLAGS_i8mm := -march=armv8.2-a+dotprod+i8mm

X86_ONLY := %_avx2.c %_avxvnni.c %_avx512.c %_avx512bf16.c
ARM_ONLY := %_neon.c %_dotprod.c %_i8mm.c
ifeq ($(ARCH),aarch64)
OTHER_ARCH := $(X86_ONLY)
else
OTHER_ARCH := $(ARM_ONLY)
endif

FOLDERS := base formats quant convert runtime runtime/kernels imageio bench
LIB_SOURCES := $(filter-out $(OTHER_ARCH),$(sort $(foreach d,$(FOLDERS),$(wildcard $(d)/*.c))))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(B)/obj/%.o)
CLI_COMMON := $(filter-out cli/cvq_%.c,$(sort $(wildcard cli/*.c)))
COMMANDS := $(patsubst cli/cvq_%.c,$(B)/bin/cvq-%,$(sort $(wildcard cli/cvq_*.c)))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))

ifeq ($(V),0)
Q := @
SAY = @printf '  %-5s %s\n'
else
SAY = @:
endif

all: $(COMMANDS) ## build the commands into build/bin

kernel_flags = $(FLAGS_$(lastword $(subst _, ,$(basename $(notdir $(1))))))

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS_ALL) $(if $(findstring runtime/kernels/,$<),$(call kernel_flags,$<)) -c -o $@ $<

$(B)/lib/libcvq-all.a: $(LIB_OBJECTS)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/bin/cvq-%: $(B)/obj/cli/cvq_%.o $(CLI_COMMON:%.c=$(B)/obj/%.o) $(B)/lib/libcvq-all.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(B)/tests/test_%: $(B)/obj/tests/unit/test_%.o $(CLI_COMMON:%.c=$(B)/obj/%.o) $(B)/lib/libcvq-all.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

unit-tests: $(UNIT_TESTS) ## build the unit tests

clean: ## remove the build folder
	rm -rf $(B)

help: ## this list
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9_-]+):.*## /  \1\t/' | expand -t 20

.PHONY: all unit-tests clean help
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
