#include "features.h"

#include <cstdint>

#if defined(__aarch64__)

#include <sys/auxv.h>

std::map<std::string, bool> CpuFeatures() {
  // Bits of linux/arch/arm64/include/uapi/asm/hwcap.h, which older systems' headers lack in part.
  unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  auto has = [](unsigned long word, int bit) { return (word >> bit & 1) != 0; };
  return {{"neon", has(first, 1)},       {"lse", has(first, 8)},   {"fullfp16", has(first, 9) && has(first, 10)},
          {"rdm", has(first, 12)},       {"sve", has(first, 22)},  {"dotprod", has(first, 20)},
          {"fp16fml", has(first, 23)},   {"sve2", has(second, 1)}, {"i8mm", has(second, 13)},
          {"bf16", has(second, 14)}};
}

#else

#include <cpuid.h>

namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers Leaf(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// Which register files the kernel saves: without that, their instructions are illegal.
uint64_t SavedState(bool osxsave) {
  if (!osxsave) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

}  // namespace

std::map<std::string, bool> CpuFeatures() {
  Registers basic = Leaf(1, 0), more = Leaf(7, 0), most = Leaf(7, 1), extended = Leaf(0x80000001, 0);
  auto has = [](unsigned word, int bit) { return (word >> bit & 1) != 0; };
  uint64_t saved = SavedState(has(basic.ecx, 27));
  bool ymm = (saved & 0x6) == 0x6, zmm = ymm && (saved & 0xe0) == 0xe0;
  bool avx512 = zmm && has(more.ebx, 16);
  return {{"sse4.2", has(basic.ecx, 20)},
          {"popcnt", has(basic.ecx, 23)},
          {"lzcnt", has(extended.ecx, 5)},
          {"bmi", has(more.ebx, 3)},
          {"bmi2", has(more.ebx, 8)},
          {"avx", ymm && has(basic.ecx, 28)},
          {"f16c", ymm && has(basic.ecx, 29)},
          {"fma", ymm && has(basic.ecx, 12)},
          {"avx2", ymm && has(more.ebx, 5)},
          {"avx512f", avx512},
          {"avx512dq", avx512 && has(more.ebx, 17)},
          {"avx512cd", avx512 && has(more.ebx, 28)},
          {"avx512bw", avx512 && has(more.ebx, 30)},
          {"avx512vl", avx512 && has(more.ebx, 31)},
          {"avx512vnni", avx512 && has(more.ecx, 11)},
          {"avx512bf16", avx512 && has(most.eax, 5)},
          {"avx512fp16", avx512 && has(more.edx, 23)},
          {"avx512ifma", avx512 && has(more.ebx, 21)},
          {"avx512vbmi", avx512 && has(more.ecx, 1)},
          {"avx512vbmi2", avx512 && has(more.ecx, 6)},
          {"avx512bitalg", avx512 && has(more.ecx, 12)},
          {"avx512vpopcntdq", avx512 && has(more.ecx, 14)},
          {"avxvnni", ymm && has(most.eax, 4)},
          {"gfni", has(more.ecx, 8)},
          {"movbe", has(basic.ecx, 22)}};
}

#endif
