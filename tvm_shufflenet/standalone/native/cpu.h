/* Whether this CPU can execute what a library was compiled for. All of it is the driver's own. */
#ifndef CPU_H
#define CPU_H

#include "system.h"

/* Registers of the CPU's own description; the table says which bit of which one is a feature. */
struct words {
  uint32_t word[8];
  int known;
};

struct feature {
  const char *name;
  const char *sentence;
  int word;
  uint32_t bits;
};

/* Literals, so that a sentence needs neither memory nor a lock. */
#define FEATURE(name, word, bits) {name, "this CPU cannot execute " name ", which the library was compiled for", word, bits}
#define BIT(number) ((uint32_t)1 << (number))

#if defined(__x86_64__)

#include <cpuid.h>

enum { BASIC_ECX, MORE_EBX, MORE_ECX, MORE_EDX, MOST_EAX, MOST_EDX, EXTENDED_ECX, SAVED };

/* What the kernel saves of the register files: without that, their instructions are illegal. */
enum { YMM = BIT(0), ZMM = BIT(1) };

static const struct feature table[] = {
    FEATURE("sse3", BASIC_ECX, BIT(0)),
    FEATURE("ssse3", BASIC_ECX, BIT(9)),
    FEATURE("sse4.1", BASIC_ECX, BIT(19)),
    FEATURE("sse4.2", BASIC_ECX, BIT(20)),
    FEATURE("movbe", BASIC_ECX, BIT(22)),
    FEATURE("popcnt", BASIC_ECX, BIT(23)),
    FEATURE("lzcnt", EXTENDED_ECX, BIT(5)),
    FEATURE("sse4a", EXTENDED_ECX, BIT(6)),
    FEATURE("xop", EXTENDED_ECX, BIT(11)),
    FEATURE("fma4", EXTENDED_ECX, BIT(16)),
    FEATURE("tbm", EXTENDED_ECX, BIT(21)),
    FEATURE("bmi", MORE_EBX, BIT(3)),
    FEATURE("bmi2", MORE_EBX, BIT(8)),
    FEATURE("gfni", MORE_ECX, BIT(8)),
    FEATURE("avx", BASIC_ECX, BIT(28)),
    FEATURE("f16c", BASIC_ECX, BIT(29)),
    FEATURE("fma", BASIC_ECX, BIT(12)),
    FEATURE("avx2", MORE_EBX, BIT(5)),
    FEATURE("avxvnni", MOST_EAX, BIT(4)),
    FEATURE("avxifma", MOST_EAX, BIT(23)),
    FEATURE("avxvnniint8", MOST_EDX, BIT(4)),
    FEATURE("avxneconvert", MOST_EDX, BIT(5)),
    FEATURE("avx512f", MORE_EBX, BIT(16)),
    FEATURE("avx512dq", MORE_EBX, BIT(17)),
    FEATURE("avx512ifma", MORE_EBX, BIT(21)),
    FEATURE("avx512cd", MORE_EBX, BIT(28)),
    FEATURE("avx512bw", MORE_EBX, BIT(30)),
    FEATURE("avx512vl", MORE_EBX, BIT(31)),
    FEATURE("avx512vbmi", MORE_ECX, BIT(1)),
    FEATURE("avx512vbmi2", MORE_ECX, BIT(6)),
    FEATURE("avx512vnni", MORE_ECX, BIT(11)),
    FEATURE("avx512bitalg", MORE_ECX, BIT(12)),
    FEATURE("avx512vpopcntdq", MORE_ECX, BIT(14)),
    FEATURE("avx512fp16", MORE_EDX, BIT(23)),
    FEATURE("avx512bf16", MOST_EAX, BIT(5)),
};

static uint32_t saved_state(uint32_t basic_ecx) {
  if (!(basic_ecx & BIT(27))) return 0; /* OSXSAVE: the kernel says what it saves */
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((low & 0x6) == 0x6 ? YMM : 0) | ((low & 0xe6) == 0xe6 ? ZMM : 0);
}

static struct words description(void) {
  struct words found = {{0}, 1};
  uint32_t a, b, c, d;
  if (__get_cpuid_count(1, 0, &a, &b, &c, &d)) found.word[BASIC_ECX] = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    found.word[MORE_EBX] = b, found.word[MORE_ECX] = c, found.word[MORE_EDX] = d;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) found.word[MOST_EAX] = a, found.word[MOST_EDX] = d;
  }
  if (__get_cpuid_count(0x80000001, 0, &a, &b, &c, &d)) found.word[EXTENDED_ECX] = c;
  found.word[SAVED] = saved_state(found.word[BASIC_ECX]);
  return found;
}

static int starts_with(const char *name, const char *start) {
  while (*start != '\0')
    if (*name++ != *start++) return 0;
  return 1;
}

static int is_saved(const struct feature *feature, const struct words *found) {
  const char *name = feature->name;
  if (starts_with(name, "avx512")) return (found->word[SAVED] & ZMM) != 0;
  int wide = starts_with(name, "avx") || starts_with(name, "fma") || starts_with(name, "f16c") || starts_with(name, "xop");
  return !wide || (found->word[SAVED] & YMM) != 0;
}

#elif defined(__aarch64__)

enum { HWCAP, HWCAP2 };
enum { AT_HWCAP = 16, AT_HWCAP2 = 26 };

/* Bits of linux/arch/arm64/include/uapi/asm/hwcap.h. */
static const struct feature table[] = {
    FEATURE("neon", HWCAP, BIT(1)),
    FEATURE("lse", HWCAP, BIT(8)),
    FEATURE("fullfp16", HWCAP, BIT(9) | BIT(10)),
    FEATURE("rdm", HWCAP, BIT(12)),
    FEATURE("jsconv", HWCAP, BIT(13)),
    FEATURE("complxnum", HWCAP, BIT(14)),
    FEATURE("dotprod", HWCAP, BIT(20)),
    FEATURE("sve", HWCAP, BIT(22)),
    FEATURE("fp16fml", HWCAP, BIT(23)),
    FEATURE("sve2", HWCAP2, BIT(1)),
    FEATURE("fptoint", HWCAP2, BIT(8)),
    FEATURE("i8mm", HWCAP2, BIT(13)),
    FEATURE("bf16", HWCAP2, BIT(14)),
};

static struct words description(void) {
  uint64_t first = 0, second = 0;
  struct words found = {{0}, system_auxiliary(AT_HWCAP, &first) == 0 && first != 0};
  system_auxiliary(AT_HWCAP2, &second);
  found.word[HWCAP] = (uint32_t)first, found.word[HWCAP2] = (uint32_t)second;
  return found;
}

static int is_saved(const struct feature *feature, const struct words *found) {
  (void)feature, (void)found; /* the kernel's words say what it lets a process use */
  return 1;
}

#endif

static int same(const char *one, const char *other) {
  while (*one != '\0' && *one == *other) one++, other++;
  return *one == *other;
}

/* `features` are names of LLVM's, NULL behind the last; those that are not known here are passed over. Returns NULL, or
 * a sentence that names the first one that the CPU or its kernel lacks. Where the kernel does not say, none is missing. */
static const char *cpu_lacks(const char *const *features) {
  const struct words found = description();
  if (!found.known) return NULL;
  for (; *features != NULL; features++)
    for (size_t index = 0; index < sizeof table / sizeof *table; index++) {
      const struct feature *each = &table[index];
      if (!same(each->name, *features)) continue;
      if ((found.word[each->word] & each->bits) != each->bits || !is_saved(each, &found)) return each->sentence;
    }
  return NULL;
}

#endif
