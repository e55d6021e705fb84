# Fronts CMake. `make` leaves build/imp.
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CLANG ?= $(firstword $(shell command -v clang-14 clang-19 clang-18 clang))
FUZZ_SECONDS ?= 20
MODEL ?= models/smollm2-nvfp4
PYTHON = build/venv/bin/python
export IMP_BIN ?= $(CURDIR)/$(BUILD)/imp

CONFIGURE = cmake -S . -DCMAKE_COLOR_DIAGNOSTICS=OFF
PYTEST_FOLDERS = $(wildcard tests/python tests/cli)

all:
	@$(CONFIGURE) -B $(BUILD) $(CMAKE_FLAGS) >/dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target imp

# The CUDA backend, a module of its own beside the program; the runtime is linked statically.
CUDA_ARCHS ?= 80 90a 100a 120a
CUDA_HOST = $(addprefix src/base/,error.c str.c)
CUDA_FLAGS = $(NVCC_FLAGS) -O3 -Iinclude -D_GNU_SOURCE -Xcompiler -fPIC
cuda: all
	@test -n "$(NVCC)" || { echo "make $@: no nvcc here" >&2; exit 1; }
	@echo "nvcc libimp_cuda.so for sm_$(CUDA_ARCHS)"
	@$(NVCC) $(CUDA_FLAGS) $(CUDA_REPORT) \
		$(foreach a,$(CUDA_ARCHS),-gencode=arch=compute_$(a),code=sm_$(a)) \
		-shared -Xlinker -zdefs -cudart static -t 0 $(wildcard src/backend/cuda/*.cu) $(CUDA_HOST) \
		-o $(BUILD)/libimp_cuda.so

# The programs of tests/unit and tests/op through ctest, then what drives the binary from Python.
# Results stay in build/reports for .ci/run to count. On the CPU, also where there is a GPU.
test: export IMP_DEVICE = cpu
test:
	@test -x $(PYTHON) || { echo "make test: first run scripts/bootstrap.sh --test" >&2; exit 1; }
	@$(CONFIGURE) -B $(BUILD) -DIMP_TESTS=ON $(CMAKE_FLAGS) >/dev/null
	@cmake --build $(BUILD) -j $(JOBS)
	@mkdir -p build/reports && rm -f build/reports/pytest.xml
	@rc=0; ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS) || rc=1; \
	if [ -n "$(PYTEST_FOLDERS)" ]; then $(PYTHON) -m pytest -q -p no:cacheprovider \
		--junit-xml=build/reports/pytest.xml $(PYTEST_FOLDERS) || rc=1; fi; exit $$rc

bench: all
	build/imp bench $(MODEL) -p 512 -n 128 -b 1

lint:
	@scripts/lint

# The unit and op tests again under AddressSanitizer and UBSan, and under ThreadSanitizer.
san:
	@$(CONFIGURE) -B build-san -DIMP_SANITIZE=address,undefined $(CMAKE_FLAGS) >/dev/null
	@cmake --build build-san -j $(JOBS)
	@ctest --test-dir build-san --output-on-failure -j $(JOBS)

# setarch -R: where mmap_rnd_bits is 32 the runtimes of gcc 12 and clang 14 cannot place their shadow.
tsan:
	@$(CONFIGURE) -B build-tsan -DIMP_SANITIZE=thread $(CMAKE_FLAGS) >/dev/null
	@cmake --build build-tsan -j $(JOBS)
	@setarch -R true 2>/dev/null && fixed="setarch -R" || fixed=""; \
	$$fixed ctest --test-dir build-tsan --output-on-failure -j $(JOBS)

# Every target of tests/fuzz for FUZZ_SECONDS, from the seeds in tests/fuzz/corpus/NAME.
fuzz:
	@test -n "$(CLANG)" || { echo "make fuzz: no clang; scripts/bootstrap.sh --lint" >&2; exit 1; }
	@test -n "$(wildcard tests/fuzz/*.c)" || { echo "make fuzz: no target in tests/fuzz" >&2; exit 1; }
	@$(CONFIGURE) -B build-fuzz -DCMAKE_C_COMPILER=$(CLANG) -DIMP_FUZZ=ON -DIMP_TESTS=OFF \
		-DIMP_SANITIZE=address,undefined $(CMAKE_FLAGS) >/dev/null
	@cmake --build build-fuzz -j $(JOBS)
	@scripts/run_fuzz build-fuzz $(FUZZ_SECONDS)

# Number formats and CUDA backend compiled for every GPU whose instructions differ, warnings as errors,
# and what the compiler said of hot kernels' registers; nothing runs here.
NVCC_FLAGS = -std=c++17 -Isrc -Werror all-warnings -Xcompiler -Wall,-Werror
cuda-check:
	@test -n "$(NVCC)" || { echo "make $@: no nvcc here" >&2; exit 1; }
	@mkdir -p build
	@printf '%s\n' 90a 120a | xargs -P $(JOBS) -I ARCH sh -c 'echo "nvcc sm_ARCH tests/device/fp.cu"; \
		exec "$$@" -gencode=arch=compute_ARCH,code=sm_ARCH -o build/fp_device_ARCH' \
		sh $(NVCC) -O2 $(NVCC_FLAGS) tests/device/fp.cu
	@$(MAKE) --no-print-directory cuda CUDA_REPORT="-Xptxas -v" 2>build/ptxas.txt || \
		{ grep -v -e '^ptxas info' -e 'bytes stack frame' build/ptxas.txt >&2; exit 1; }
	@scripts/check_spills build/ptxas.txt

# The programs of tests/op that the GPU runs, to be carried to its machine: in build/gpu-ops with the
# one library that it may lack, since cmocka comes without an archive.
GPU_OPS = fast w4a4 attention gdn moe rows sample sample_match
gpu-ops:
	@$(CONFIGURE) -B $(BUILD) -DIMP_TESTS=ON $(CMAKE_FLAGS) >/dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target $(GPU_OPS:%=test_%)
	@mkdir -p build/gpu-ops
	@for name in $(GPU_OPS); do strip -g -o build/gpu-ops/test_$$name $(BUILD)/test_$$name || exit 1; done
	@cp "$$(ldd $(BUILD)/test_rows | sed -n 's/.*\(libcmocka\.so[^ ]*\) => \([^ ]*\) .*/\2/p')" build/gpu-ops/

# The programs of tests/device, for a machine with a GPU, which may be another one.
device: all
	@cmake --build $(BUILD) -j $(JOBS) --target device

# On a machine with a GPU; build/fp_device_90a may have been built elsewhere.
gpu-test:
	@test -x build/fp_device_90a || $(MAKE) --no-print-directory cuda-check
	@test -x build/device_bits || $(MAKE) --no-print-directory device
	@scripts/gpu-test.sh

# Remake the stored vectors, or compare live, with PyPI's torch and transformers (gigabytes).
ORACLE ?= build/oracle
GGUF = models/SmolLM2-135M-Instruct.Q4_1.gguf
golden oracle: all
	@scripts/get-model.sh
	@tests/golden/$@.sh $(ORACLE)/venv $(GGUF) $(ORACLE)/models $(IMP_BIN)

# Leaves what was downloaded: build/venv and build/deps.
clean:
	rm -rf build-san build-tsan build-fuzz build-analyzer
	find $(BUILD) -mindepth 1 -maxdepth 1 ! -name venv ! -name deps -exec rm -rf {} +

.PHONY: all cuda test bench lint san tsan fuzz cuda-check device golden oracle gpu-ops gpu-test \
	clean
