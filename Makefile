# Fronts CMake. `make` leaves build/imp.
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=

all:
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) >/dev/null
	@cmake --build $(BUILD) -j $(JOBS)

test: all
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

clean:
	rm -rf $(BUILD)/CMakeCache.txt $(BUILD)/CMakeFiles

.PHONY: all test clean
