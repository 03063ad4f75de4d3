// The matrix unit's instructions on CPUs that have none: each raises SIGILL, and the handler does what it says. So the
// kernels run as they are compiled, instruction by instruction, wherever AVX-512 VNNI is.
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/fill.hpp"
#include "kernels/plain_tiles.hpp"

namespace mixtral::test {
namespace {

using Tile = unsigned char[16 * 64];

// A thread's tiles from ldtilecfg to tilerelease, one of so many units; null: the instructions are refused. (Not in the
// thread's own memory: that is part of its stack, whose need other tests measure.)
constexpr int kUnits = 64;
Tile units[kUnits][8];
std::atomic<std::uint64_t> units_in_use{0};
thread_local Tile* tiles = nullptr;

void release() noexcept {
  if (tiles == nullptr) return;
  const auto unit = (tiles - units[0]) / 8;
  tiles = nullptr;
  units_in_use.fetch_and(~(std::uint64_t{1} << unit));
}

struct Config {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};

// Refused, unless all tiles have 16 rows of 64 bytes.
bool configure(const void* from) noexcept {
  Config config;
  std::memcpy(&config, from, sizeof config);
  bool ok = config.palette == 1 && config.start_row == 0;
  for (int t = 0; t < 8; ++t) ok = ok && config.row_bytes[t] == 64 && config.rows[t] == 16;
  if (!ok) return false;
  release();
  std::uint64_t used = units_in_use.load();
  do {
    if (used == ~std::uint64_t{0}) return false;
  } while (!units_in_use.compare_exchange_weak(used, used | (used + 1)));
  tiles = units[std::countr_one(used)];
  std::memset(tiles, 0, 8 * sizeof(Tile));
  return true;
}

// A memory operand: where it begins, the step from row to row that its index register holds, the bytes that name it.
struct Operand {
  char* begin;
  std::ptrdiff_t step;
  int length;
};

// code: ModRM and what follows; high_index, high_base: the prefix's fourth bits
Operand operand(const std::uint8_t* code, bool high_index, bool high_base, const greg_t* registers) noexcept {
  static constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  const int mod = code[0] >> 6;
  int length = 1, base = code[0] & 7;
  std::ptrdiff_t step = 0;
  if (base == 4) {
    const std::uint8_t sib = code[length++];
    const int index = (sib >> 3 & 7) | (high_index ? 8 : 0);
    if (index != 4) step = static_cast<std::ptrdiff_t>(registers[kOrder[index]]) << (sib >> 6);
    base = sib & 7;
  }
  std::int64_t displacement = 0;
  const bool absolute = mod == 0 && base == 5;  // of the instruction's end, or of nothing: nobody's here
  if (mod == 1) {
    displacement = static_cast<std::int8_t>(code[length++]);
  } else if (mod == 2) {
    std::int32_t wide;
    std::memcpy(&wide, code + length, sizeof wide);
    displacement = wide;
    length += 4;
  }
  const std::int64_t address = absolute ? 0 : registers[kOrder[base | (high_base ? 8 : 0)]];
  return {reinterpret_cast<char*>(address + displacement), step, length};
}

// Executes one instruction; its length, or 0 if it is none of the unit's.
int execute(const std::uint8_t* code, const greg_t* registers) noexcept {
  // VEX with three bytes, map 0f38; then opcode and ModRM.
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2) return 0;
  enum Prefix { kNone, k66, kF3, kF2 };
  const auto prefix = static_cast<Prefix>(code[2] & 3);
  const int opcode = code[3], mod = code[4] >> 6, reg = code[4] >> 3 & 7, rm = code[4] & 7;
  const int third = ~(code[2] >> 3) & 7;
  const auto memory = [&] { return operand(code + 4, (code[1] & 0x40) == 0, (code[1] & 0x20) == 0, registers); };
  if (opcode == 0x49 && prefix == kNone && mod != 3) {  // ldtilecfg
    const Operand from = memory();
    return configure(from.begin) ? 4 + from.length : 0;
  }
  if (tiles == nullptr) return 0;
  if (opcode == 0x49 && prefix == kNone) {  // tilerelease
    release();
    return 5;
  }
  if (opcode == 0x49 && prefix == kF2) {  // tilezero
    std::memset(tiles[reg], 0, sizeof(Tile));
    return 5;
  }
  if (opcode == 0x4b && mod != 3) {  // tileloadd, tileloaddt1, tilestored
    const Operand at = memory();
    for (int r = 0; r < 16; ++r) {
      char* row = at.begin + r * at.step;
      prefix == kF3 ? std::memcpy(row, tiles[reg] + 64 * r, 64) : std::memcpy(tiles[reg] + 64 * r, row, 64);
    }
    return 4 + at.length;
  }
  if (opcode == 0x5e && prefix == kF2) {  // tdpbssd
    kernels::multiply_plain_bytes<std::int8_t, std::int8_t>(tiles[rm], tiles[third], tiles[reg]);
    return 5;
  }
  if (opcode == 0x5e && prefix == kF3) {  // tdpbsud
    kernels::multiply_plain_bytes<std::int8_t, std::uint8_t>(tiles[rm], tiles[third], tiles[reg]);
    return 5;
  }
  if (opcode == 0x5c && prefix == kF3) {  // tdpbf16ps
    kernels::multiply_plain_pairs(tiles[rm], tiles[third], tiles[reg]);
    return 5;
  }
  return 0;
}

void on_illegal_instruction(int signal, siginfo_t*, void* context) noexcept {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const int length = execute(reinterpret_cast<const std::uint8_t*>(registers[REG_RIP]), registers);
  if (length == 0) ::signal(signal, SIG_DFL);  // the instruction again, and the end
  registers[REG_RIP] += length;
}

}  // namespace

void fill_trapped_amx(KernelTable& table) noexcept {
  struct sigaction action {};
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigaction(SIGILL, &action, nullptr);
  kernels::fill_amx_int8(table);
  kernels::fill_amx_bf16(table);
  table.name = "AMX by traps";
  table.matrix_unit_tokens = 16;
}

}  // namespace mixtral::test
