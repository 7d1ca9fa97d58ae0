# cvq: CogVLM2 on a CPU. `make help` lists what can be made.
#
# B is the build folder, one per set of flags; V=1 shows the commands. Tests make every warning an error.
# OPTIMIZE, CFLAGS, LDFLAGS, CC, PREFIX, LIBDIR and DESTDIR mean what they usually mean. Where the built commands do not run as
# they are, RUN is what runs them (qemu-aarch64), for their manual pages.
B ?= build
V ?= 0
ifeq ($(origin CC),default)
CC := gcc
endif
PKG_CONFIG ?= pkg-config
PYTHON = $(or $(PYTHON_FOUND),$(eval PYTHON_FOUND := $(shell scripts/setup.sh --python))$(PYTHON_FOUND))
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
VERSION := $(shell sed -n 's/.*CVQ_VERSION_STRING "\(.*\)"/\1/p' include/cvq.h)

# ---- flags
PACKAGES := libzstd libcjson libpcre2-8 libcrypto
PACKAGES_FOUND := $(shell $(PKG_CONFIG) --exists $(PACKAGES) 2>/dev/null && echo yes)
PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
# stb is headers only, so that a cross build reads those of this machine.
STB_CFLAGS := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags stb 2>/dev/null))
LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null) -lm

TARGET := $(shell $(CC) -dumpmachine 2>/dev/null)
ARCH := $(firstword $(subst -, ,$(TARGET)))
WERROR ?=
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
# gcc's guess at what is not set cannot know that a failure never returns CVQ_OK (clang does not guess).
IS_GCC := $(filter-out 0,$(shell $(CC) --version 2>/dev/null | grep -c "Free Software Foundation"))
WARNINGS += $(if $(IS_GCC),-Wno-maybe-uninitialized)
OPTIMIZE ?= -O3 -g
# SANITIZE=address, undefined or thread in place of the hardening, which a sanitizer would blur.
ifdef SANITIZE
SAFETY := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
SAFETY_LINK := -fsanitize=$(SANITIZE)
else
SAFETY := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
SAFETY_LINK := -pie $(if $(findstring darwin,$(TARGET)),,-Wl,-z,relro,-z,now)
endif
# Contraction off: results must not depend on what a compiler fuses (fused operations are written out).
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -I. -Iinclude $(WARNINGS) $(OPTIMIZE) -ffp-contract=off -fno-math-errno \
  $(SAFETY) $(PACKAGE_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pthread $(SAFETY_LINK) $(LDFLAGS)

# Only kernels, and the loops that measure peaks, get their set's flags, by the end of the file's name.
FLAGS_avx2 := -mavx2 -mfma -mf16c
FLAGS_avxvnni := $(FLAGS_avx2) -mavxvnni
FLAGS_avx512 := $(FLAGS_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
FLAGS_avx512bf16 := $(FLAGS_avx512) -mavx512bf16
# On ARM gcc's first scheduling brings loads forward until there are no registers left for sums.
FLAGS_neon := $(if $(IS_GCC),-fno-schedule-insns)
FLAGS_dotprod := $(FLAGS_neon) -march=armv8.2-a+dotprod
FLAGS_i8mm := $(FLAGS_neon) -march=armv8.2-a+dotprod+i8mm
kernel_flags = $(FLAGS_$(lastword $(subst _, ,$(basename $(notdir $(1))))))
# What some files need beside that: stb in imageio/ alone; for fuzzing kernels the address sanitizer alone
# (clang takes many minutes to instrument some for coverage); stb_image 2.27 shifts zeros by 32 and more where a scan ends too early;
# jumps of what COVERED names counted, as they are written, for make coverage and fuzz-coverage;
# and tests need no speed (gcc 12 for ARM breaks down over one of them at -O3).
file_flags = $(if $(filter runtime/kernels/% bench/peaks%,$(1)),$(call kernel_flags,$(1))) \
  $(if $(filter quant/%_avx2.c,$(1)),-mavx2) \
  $(if $(FUZZER),$(if $(filter runtime/kernels/%,$(1)),-fno-sanitize=all -fsanitize=address)) \
  $(if $(SANITIZE),$(if $(filter %/stb_decode.c,$(1)),-fno-sanitize=shift)) \
  $(if $(filter imageio/% tests/%,$(1)),$(STB_CFLAGS)) \
  $(if $(filter tests/%,$(1)),-O1) \
  $(if $(COVERED),$(if $(filter $(COVERED),$(1)),-O0 -U_FORTIFY_SOURCE --coverage))

# ---- sources, sorted, without the other architecture's kernels
X86_ONLY := %_avx2.c %_avxvnni.c %_avx512.c %_avx512bf16.c
ARM_ONLY := %_neon.c %_dotprod.c %_i8mm.c
OTHER_ARCH := $(if $(filter aarch64 arm64,$(ARCH)),$(X86_ONLY),$(if $(filter x86_64,$(ARCH)),$(ARM_ONLY),$(X86_ONLY) $(ARM_ONLY)))
sources = $(filter-out $(OTHER_ARCH),$(sort $(foreach d,$(1),$(wildcard $(d)/*.c))))
objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIBRARY_FOLDERS := base formats runtime runtime/kernels
ALL_FOLDERS := $(LIBRARY_FOLDERS) quant convert imageio bench
LIBRARY_OBJECTS := $(call objects,$(call sources,$(LIBRARY_FOLDERS)))
ALL_OBJECTS := $(call objects,$(call sources,$(ALL_FOLDERS)) $(filter-out cli/cvq_%.c,$(sort $(wildcard cli/*.c))))
COMMANDS := $(patsubst cli/cvq_%.c,$(B)/bin/cvq-%,$(sort $(wildcard cli/cvq_*.c)))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/fuzz_%,$(filter-out tests/fuzz/fuzz_files.c,$(sort $(wildcard tests/fuzz/fuzz_*.c))))
# Whose inputs a fuzzer changes as JSON; others below as parts of a head, or as tokenizers.
JSON_FUZZED := $(addprefix $(B)/fuzz/fuzz_,config importance manifest metadata results safetensors safetensors_index second_moments task tokenizer_json)
MUTATE := $(B)/obj/tests/fuzz/mutate_
TEST_TOOLS := $(patsubst tests/tools/%.c,$(B)/tools/%,$(sort $(wildcard tests/tools/*.c))) $(B)/tools/failing_calls.so

ifeq ($(V),0)
Q := @
SAY = @printf '  %-5s %s\n'
else
SAY = @:
endif

# ---- building
all: $(COMMANDS) $(B)/lib/libcvq.a ## the commands into build/bin, the library into build/lib

# With a package missing, name the command that installs it, instead of a compiler's error.
ifneq ($(PACKAGES_FOUND),yes)
NEEDS := needs
needs:
	@scripts/setup.sh --check build
endif

# Rewritten, and so everything rebuilt, only when the flags are others.
FLAGS_TEXT = $(CC) $(CFLAGS_ALL) | $(LDFLAGS_ALL)
$(B)/flags: force
	@mkdir -p $(@D)
	@printf '%s\n' "$(FLAGS_TEXT)" | cmp -s - $@ || printf '%s\n' "$(FLAGS_TEXT)" > $@

$(B)/obj/%.o: %.c $(B)/flags | $(NEEDS)
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS_ALL) $(WERROR) $(call file_flags,$<) -MMD -MP -c -o $@ $<

$(B)/lib/libcvq.a: $(LIBRARY_OBJECTS)
$(B)/lib/libcvq-all.a: $(ALL_OBJECTS)
$(B)/lib/libcvq.a $(B)/lib/libcvq-all.a:
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

LINK = $(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS_ALL) -o $@ $(filter-out %.a,$^) $(filter %.a,$^) $(LIBS)
$(B)/bin/cvq-%: $(B)/obj/cli/cvq_%.o $(B)/lib/libcvq-all.a
	$(SAY) LINK $@
	$(LINK)
$(B)/tests/test_%: $(B)/obj/tests/unit/test_%.o $(B)/lib/libcvq-all.a
	$(SAY) LINK $@
	$(LINK)
$(B)/tools/%: $(B)/obj/tests/tools/%.o $(B)/lib/libcvq-all.a
	$(SAY) LINK $@
	$(LINK)

# Preloaded into commands: without what their flags add.
$(B)/tools/%.so: tests/preload/%.c $(B)/flags
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARNINGS) $(WERROR) -O2 -fPIC -shared -o $@ $<

# A fuzz target with libFuzzer's main (FUZZER set), or with one that replays files.
$(B)/fuzz/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/fuzz_files.o $(if $(FUZZER),,$(B)/obj/tests/fuzz/replay.o) $(B)/lib/libcvq-all.a
	$(SAY) LINK $@
	$(LINK) $(FUZZER)
ifdef FUZZER
$(JSON_FUZZED): $(MUTATE)json.o $(MUTATE)json_text.o
$(B)/fuzz/fuzz_cvq_mended: $(MUTATE)cvq.o $(MUTATE)json_text.o
$(B)/fuzz/fuzz_tokenizer_table: $(MUTATE)tokenizer.o
endif

unit-tests: $(UNIT_TESTS)
fuzz-targets: $(FUZZ_TARGETS) $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/fuzz/mutate_*.c))
test-programs: $(COMMANDS) $(B)/lib/libcvq.a $(UNIT_TESTS) $(TEST_TOOLS) $(FUZZ_TARGETS)

# ---- the demo
demo: ## install what is missing, build, and ask the small model about pictures
	@scripts/setup.sh build
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@scripts/demo.sh $(B)/bin

# ---- tests: one build folder per configuration, then one run of everything in them
SUB = +@$(MAKE) --no-print-directory -j$(JOBS) WERROR=-Werror test-programs
RUN_TESTS = @$(PYTHON) tests/run_tests.py $(TEST_OPTIONS)
# Nor do its guesses at overflows survive a sanitizer's checks or vectorized tails.
NO_GUESSES := CFLAGS=-Wno-stringop-overflow
SANITIZED := OPTIMIZE='-O2 -g' $(NO_GUESSES)
ASAN := B=build/asan SANITIZE=address $(SANITIZED)
UBSAN := B=build/ubsan SANITIZE=undefined,float-cast-overflow $(SANITIZED)
TSAN := B=build/tsan SANITIZE=thread $(SANITIZED)
CLANG := B=build/clang CC=clang
CROSS_PKG_CONFIG := env PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig pkg-config
CROSS := B=build/aarch64 CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
  PKG_CONFIG='$(CROSS_PKG_CONFIG)' $(NO_GUESSES)
# "yes" where the cross compiler, its libraries and qemu are there; nothing is installed for it here.
HAVE_CROSS = $(or $(CROSS_FOUND),$(eval CROSS_FOUND := $(shell scripts/setup.sh --check cross >/dev/null 2>&1 && echo yes || echo no))$(CROSS_FOUND))
# Two processors: one with every extension that is used, one with plain NEON.
RUN_AARCH64 = 'aarch64=build/aarch64=qemu-aarch64 -cpu max' 'aarch64-plain=build/aarch64=qemu-aarch64 -cpu cortex-a72'
SKIP_AARCH64 = --skipped 'aarch64: the cross compiler, its arm64 libraries or qemu-user are not installed (scripts/setup.sh cross installs them)'

test: ## everything: gcc, clang, both sanitizers of memory and behaviour, aarch64 (where its tools are), the source's rules
	@scripts/setup.sh test
	$(SUB) B=build
	$(SUB) $(CLANG)
	$(SUB) $(ASAN)
	$(SUB) $(UBSAN)
	$(if $(filter yes,$(HAVE_CROSS)),$(SUB) $(CROSS))
	$(RUN_TESTS) gcc=build clang=build/clang asan=build/asan ubsan=build/ubsan \
	  $(if $(filter yes,$(HAVE_CROSS)),$(RUN_AARCH64),$(SKIP_AARCH64))

quick: ## the gcc build with all its tests, in under five minutes
	@scripts/setup.sh test
	$(SUB) B=build
	$(RUN_TESTS) gcc=build

faults: ## every call of the system or the allocator made to fail once, command by command (ONLY='pack: write' for some)
	$(SUB) B=build
	@CVQ_BIN=build/bin CVQ_TOOLS=build/tools XDG_CACHE_HOME=/dev/null $(PYTHON) tests/faults.py $(if $(ONLY),'$(ONLY)',--all) --jobs $(JOBS)

regress: all ## what quantization costs, recipe by recipe, against what it cost before (MODEL= and DATA= for another model, REWRITE=1)
	@$(PYTHON) scripts/regress.py --bin $(B)/bin --out $(B)/regress $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data $(DATA)) \
	  $(if $(REWRITE),--rewrite)

clang: ## the same with clang
	$(SUB) $(CLANG)
	$(RUN_TESTS) clang=build/clang

asan: ## the same under the address and leak sanitizers
	$(SUB) $(ASAN)
	$(RUN_TESTS) asan=build/asan

ubsan: ## the same under the undefined behaviour sanitizer
	$(SUB) $(UBSAN)
	$(RUN_TESTS) ubsan=build/ubsan

tsan: ## the sanitizer of data races: tests that start threads, commands with several threads and processes (ALL=1: every unit test)
	$(SUB) $(TSAN)
	$(RUN_TESTS) $(if $(ALL),tsan-all,tsan)=build/tsan

aarch64: ## cross-build for 64-bit ARM and run the tests under qemu
	@scripts/setup.sh --check cross
	$(SUB) $(CROSS)
	$(RUN_TESTS) $(RUN_AARCH64)

emulate: ## the kernels' tests at AVX-512 VNNI on an emulated processor (Bochs; some minutes)
	@scripts/setup.sh emulate
	+@$(MAKE) --no-print-directory -j$(JOBS) WERROR=-Werror $(B)/tests/test_kernels
	scripts/emulate.sh $(B)/emulate $(B)/tests/test_kernels avx512 --in-bochs

evex: ## the kernels' tests at AVX-VNNI on a processor that has AVX-512 VNNI instead
	+@$(MAKE) --no-print-directory -j$(JOBS) B=build/evex CFLAGS=-DCVQ_EVEX WERROR=-Werror build/evex/tests/test_kernels
	build/evex/tests/test_kernels avxvnni

# ---- analysis: gcc's own while it compiles, then clang-tidy (.clang-tidy) and cppcheck (.cppcheck); tests are not looked at
# gcc 12 alone does not follow what it reports in two of its checks: values that "= {0}" or a loop set, and memory that is stored
# at a variable index. clang-tidy looks for both, valgrind and LeakSanitizer find them in what runs.
ANALYZER := -include tests/analyzed.h -fanalyzer -Wno-analyzer-use-of-uninitialized-value -Wno-analyzer-malloc-leak
ANALYZED := $(call sources,$(ALL_FOLDERS) cli)
$(B)/obj/%.tidy: %.c $(B)/obj/%.o .clang-tidy
	$(SAY) TIDY $<
	$(Q)clang-tidy --quiet $< -- -std=c11 -D_GNU_SOURCE -I. -Iinclude -include tests/analyzed.h $(PACKAGE_CFLAGS) $(call file_flags,$<) > $@ 2>&1 || { cat $@; false; }
$(B)/cppcheck.out: $(call objects,$(ANALYZED)) .cppcheck
	$(SAY) CHECK $(words $(ANALYZED)) files
	@mkdir -p $(B)/cppcheck
	$(Q)cppcheck -j $(JOBS) -q --std=c11 --enable=warning,style,performance,portability --suppressions-list=.cppcheck \
	  --cppcheck-build-dir=$(B)/cppcheck --error-exitcode=1 --template='{file}:{line}: {message} [{id}]' \
	  -D__$(ARCH)__ -D__linux__ -D_GNU_SOURCE -D__BYTE_ORDER__=1 -D__ORDER_LITTLE_ENDIAN__=1 -I. -Iinclude $(ANALYZED) > $@ 2>&1 || { cat $@; false; }
analyzed: $(patsubst %.c,$(B)/obj/%.tidy,$(ANALYZED)) $(B)/cppcheck.out
analyze: ## gcc -fanalyzer, clang-tidy and cppcheck over the source, none of which may complain
	@scripts/setup.sh analyze
	+@$(MAKE) --no-print-directory -j$(JOBS) B=build/analyze CC=gcc OPTIMIZE=-O1 CFLAGS='$(ANALYZER)' WERROR=-Werror analyzed

valgrind: ## the small model converted, quantized and asked under valgrind
	@scripts/setup.sh analyze
	+@$(MAKE) --no-print-directory -j$(JOBS) all
	@CVQ_BIN=$(B)/bin $(PYTHON) tests/valgrind.py

coverage: ## branches of formats/ that its tests take, file by file; fails below 95% (LINES=1 lists those not taken)
	@scripts/setup.sh test
	+@$(MAKE) --no-print-directory -j$(JOBS) B=build/coverage COVERED=formats/%.c OPTIMIZE='-O1 -g' LDFLAGS=--coverage WERROR=-Werror test-programs
	@find build/coverage -name '*.gcda' -delete
	@$(PYTHON) tests/run_tests.py $(TEST_OPTIONS) coverage=build/coverage
	@$(PYTHON) scripts/coverage.py --least 95 $(if $(LINES),--lines) build/coverage/obj formats

MINUTES ?= 1
fuzz: ## libFuzzer on every target, MINUTES=1 each, from the corpora of tests/fuzz
	@scripts/setup.sh fuzz
	+@$(MAKE) --no-print-directory -j$(JOBS) B=build/fuzz CC=clang OPTIMIZE='-O1 -g' FUZZER=-fsanitize=fuzzer \
	  SANITIZE=fuzzer-no-link,address,undefined,float-cast-overflow fuzz-targets
	@scripts/fuzz.sh build/fuzz/fuzz $(MINUTES) $(ONLY)

# What reads the files that fuzz targets make; beside it the parts that write such files count as not taken.
FUZZED := $(addprefix formats/,cvq_head cvq_index cvq_layout extents json manifest metadata metadata_frame minisign model_config \
  model_tensors packed_file safetensors safetensors_checkpoint tokenizer_table) imageio/exif imageio/jpeg_stream imageio/png_stream \
  imageio/sniff convert/checkpoint_config convert/journal convert/tokenizer_import quant/feedback quant/feedback_file quant/importance \
  quant/sensitivity bench/logits_file runtime/image_file cli/batch_results cli/history cli/task_file
fuzz-coverage: ## branches that the fuzz corpora take, file by file (LINES=1 lists those not taken)
	@scripts/setup.sh test
	+@$(MAKE) --no-print-directory -j$(JOBS) B=build/fuzz-coverage COVERED='$(FUZZED:%=%.c)' OPTIMIZE='-O1 -g' LDFLAGS=--coverage fuzz-targets
	@find build/fuzz-coverage -name '*.gcda' -delete
	@set -e; for t in $(patsubst $(B)/fuzz/fuzz_%,%,$(FUZZ_TARGETS)); do printf '%-18s ' $$t; build/fuzz-coverage/fuzz/fuzz_$$t tests/fuzz/corpus/$$t; done
	@$(PYTHON) scripts/coverage.py $(if $(LINES),--lines) build/fuzz-coverage/obj $(FUZZED:%=%.c)

check-includes: ## who may include whom, and what libraries may not call
	@$(PYTHON) tests/check_includes.py

C_FILES = $(sort $(wildcard $(addsuffix /*.[ch],$(ALL_FOLDERS) include cli examples tests/unit tests/tools tests/preload tests/fuzz)))
format: ## rewrite the source with clang-format
	clang-format -i $(C_FILES)
format-check: ## say what clang-format would change
	@clang-format --dry-run -Werror $(C_FILES)

# ---- installing
INSTALLED_HEADERS := cvq.h cvq_status.h
DOC_DIR := $(PREFIX)/share/doc/cvq
define PKG_CONFIG_FILE
prefix=$(PREFIX)
libdir=$(LIBDIR)
includedir=$${prefix}/include

Name: cvq
Description: CogVLM2, a vision-language model, on CPUs
Version: $(VERSION)
Requires: $(PACKAGES)
Libs: -L$${libdir} -lcvq -pthread -lm
Cflags: -I$${includedir}
endef
export PKG_CONFIG_FILE

# Manual pages and completion are printed by the commands themselves.
MAN_DIR := $(PREFIX)/share/man/man1
COMPLETION_DIR := $(PREFIX)/share/bash-completion/completions
MANUALS := $(patsubst $(B)/bin/%,$(B)/share/%.1,$(COMMANDS))
COMPLETIONS := $(patsubst $(B)/bin/%,$(B)/share/%.bash,$(COMMANDS))
$(B)/share/%.1: $(B)/bin/%
	@mkdir -p $(@D)
	$(Q)$(RUN) $< --print-manual > $@
$(B)/share/%.bash: $(B)/bin/%
	@mkdir -p $(@D)
	$(Q)$(RUN) $< --print-completion > $@
manuals: $(MANUALS) $(COMPLETIONS) ## manual pages and bash completion, into build/share

install: all manuals ## into PREFIX (/usr/local), below DESTDIR if that is set
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(DOC_DIR)/examples" \
	  "$(DESTDIR)$(MAN_DIR)" "$(DESTDIR)$(COMPLETION_DIR)"
	install -m 644 $(MANUALS) "$(DESTDIR)$(MAN_DIR)"
	for c in $(COMPLETIONS); do install -m 644 $$c "$(DESTDIR)$(COMPLETION_DIR)/$$(basename $$c .bash)" || exit 1; done
	install -m 755 $(COMMANDS) "$(DESTDIR)$(PREFIX)/bin"
	install -m 644 $(addprefix include/,$(INSTALLED_HEADERS)) "$(DESTDIR)$(PREFIX)/include"
	install -m 644 $(B)/lib/libcvq.a "$(DESTDIR)$(LIBDIR)"
	printf '%s\n' "$$PKG_CONFIG_FILE" > "$(DESTDIR)$(LIBDIR)/pkgconfig/cvq.pc"
	chmod 644 "$(DESTDIR)$(LIBDIR)/pkgconfig/cvq.pc"
	install -m 644 README.md CHANGELOG.md LICENSE "$(DESTDIR)$(DOC_DIR)"
	install -m 644 $(wildcard examples/*.c) "$(DESTDIR)$(DOC_DIR)/examples"

uninstall: ## what install put there
	rm -f $(patsubst $(B)/bin/%,"$(DESTDIR)$(PREFIX)/bin/%",$(COMMANDS))
	rm -f $(patsubst $(B)/bin/%,"$(DESTDIR)$(MAN_DIR)/%.1",$(COMMANDS)) $(patsubst $(B)/bin/%,"$(DESTDIR)$(COMPLETION_DIR)/%",$(COMMANDS))
	rm -f $(foreach h,$(INSTALLED_HEADERS),"$(DESTDIR)$(PREFIX)/include/$(h)")
	rm -f "$(DESTDIR)$(LIBDIR)/libcvq.a" "$(DESTDIR)$(LIBDIR)/pkgconfig/cvq.pc"
	rm -rf "$(DESTDIR)$(DOC_DIR)"

deb: ## Debian packages, checked by lintian, into build/deb
	@scripts/setup.sh package
	@scripts/package.sh $(B)/deb

clean: ## remove the build folder
	rm -rf $(B)

help: ## this list
	@echo 'make TARGET [V=1] [B=build folder] [CC=compiler] [PREFIX=/usr/local] [DESTDIR=]'
	@grep -hE '^[a-z0-9_-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z0-9_-]+):.*## /  \1\t/' | expand -t 20

.PHONY: all needs force unit-tests fuzz-targets test-programs demo test quick faults regress clang asan ubsan tsan aarch64 emulate evex analyzed \
  analyze valgrind coverage fuzz fuzz-coverage check-includes format format-check manuals deb install uninstall clean help
.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
