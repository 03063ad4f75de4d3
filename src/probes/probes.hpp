// Ceilings of this machine, measured in the same process just before and after whatever they are compared with, on the
// executor that it runs on: threads of the probe's own would compete with workers that still spin.
#pragma once

#include <cstddef>
#include <string>

#include "mixtral/core/arena.hpp"
#include "mixtral/core/executor.hpp"
#include "mixtral/ops/isa.hpp"

namespace mixtral::probes {

// A DRAM probe's memory: more than any cache.
inline constexpr Index kDramBytes = Index{1} << 30;

// Bytes a second that all workers read from `arena` together, the better of one and eight streams a worker. The arena
// has kDramBytes or more and was written once before.
double dram_read_rate(const Arena& arena, Executor& executor);

// Operations a second of all workers together, operands in registers, a multiply-add counting two; 0 if the instruction
// set has no probe or this CPU lacks it. In assembly, since gcc 12 spills the accumulators of the obvious loop over
// intrinsics and then reads three times too low.
double f32_rate(Executor& executor, Isa isa);

// Products of bytes, added with 32 bits.
enum class ByteProducts {
  kAvx2,       // vpmaddubsw, vpmaddwd, vpaddd
  kAvx2Eight,  // eight vpmaddubsw added with 16 bits, then one vpmaddwd and vpaddd
  kVnni,       // vpdpbusd on 512 bits
  kAvx2Vnni,   // on 256
  kAmx,        // tdpbsud, 2 x 2 tiles, operands loaded from the L1 cache
};
double byte_product_rate(Executor& executor, ByteProducts kind);

// The matrix unit alone, of this thread's CPU, just now: some 50 microseconds, or 200. Shared hosts have units of two
// speeds that change within milliseconds. 0 without one.
double matrix_unit_sample();

// The best of those that kernels of this instruction set may use.
double byte_product_rate(Executor& executor, Isa isa);

// Products of bf16 pairs, added with float32, of the instruction set's best unit for them; 0 without one.
double pair_product_rate(Executor& executor, Isa isa);

// The CPU's name as the system tells it, for results.
std::string machine_name();

}  // namespace mixtral::probes
