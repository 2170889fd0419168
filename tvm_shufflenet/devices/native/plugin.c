/* Counts what a guest program executes between two marks, for the cycle model to price.
 *
 * A QEMU TCG plugin for aarch64 guests that compute in one thread. It counts how often each translated block runs, and
 * feeds every load and store to a model of a first and a second level data cache (least recently used, write-allocate,
 * write-back, no prefetch). What QEMU does not report as an access is not seen: prfm and dc zva. The guest marks a
 * region with a system call that does nothing else:
 *
 *   getpriority(0x7e57, 0)   counts start at zero; the caches keep their contents, as a warm core does
 *   getpriority(0x7e57, k)   the counts so far are written to OUT/PID.k
 *
 * With the counts goes the number of threads that ran between the marks, so that nobody prices more than one of them;
 * one that spent the time waiting in a system call did not run.
 *
 * Arguments: out=DIR,l1d=BYTES:WAYS:LINE,l2=BYTES:WAYS:LINE. A fork copies all state, so each forked session counts for
 * itself and writes under its own process id.
 */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The part of QEMU's plugin interface used here, version 1 (QEMU 7.2 has it): its header is not packaged. */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t plugin_id;
typedef uint32_t meminfo;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
enum { OP_ADD_U64 = 0, CB_NO_REGS = 0, MEM_R = 1, MEM_W = 2 };
typedef void (*mem_callback)(unsigned vcpu, meminfo, uint64_t address, void *data);
typedef void (*syscall_callback)(plugin_id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                                 uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned vcpu));
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *counter, uint64_t increment);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_callback, int flags, int rw, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_callback);
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, void (*)(plugin_id, unsigned vcpu, int64_t number, int64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(meminfo);
EXPORT int qemu_plugin_version = 1;

enum { GETPRIORITY = 141, MARK = 0x7e57 };

/* Caches. A set is an array of entries, most recently used first; an entry is 2 * line number + 1 if it was written to.
 * Entry 0 is free: the guest never maps line 0. */
struct cache {
    uint64_t *entries, set_mask;
    unsigned ways, line_bits;
};
static struct cache l1d, l2;
static uint64_t line_mask, straddle_offset; /* an access that starts above this offset may reach into the next line */
static struct { uint64_t l1_accesses, l1_misses, l2_misses, l2_writebacks; } totals;

static inline uint64_t *set_of(const struct cache *cache, uint64_t key)
{
    return cache->entries + ((key >> 1) & cache->set_mask) * cache->ways;
}

/* Makes the line of ``key`` the most recent of its set. Returns false, and the entry it pushed out, on a miss. */
static bool touch(const struct cache *cache, uint64_t key, uint64_t *evicted)
{
    uint64_t *set = set_of(cache, key);
    unsigned way = 0;
    while (way < cache->ways && (set[way] ^ key) > 1)
        way++;
    bool hit = way < cache->ways;
    if (!hit)
        way = cache->ways - 1;
    uint64_t old = set[way];
    memmove(set + 1, set, way * sizeof *set);
    set[0] = hit ? old | key : key;
    *evicted = hit ? 0 : old;
    return hit;
}

static void touch_line(uint64_t key)
{
    uint64_t evicted, evicted_from_l2;
    totals.l1_accesses++;
    if (touch(&l1d, key, &evicted))
        return;
    totals.l1_misses++;
    totals.l2_misses += !touch(&l2, key & ~1ull, &evicted_from_l2);
    totals.l2_writebacks += evicted_from_l2 & 1;
    if (evicted & 1) { /* a written line goes back to L2 */
        touch(&l2, evicted, &evicted_from_l2);
        totals.l2_writebacks += evicted_from_l2 & 1;
    }
}

static __attribute__((noinline)) void access_slowly(meminfo info, uint64_t address, uint64_t written)
{
    uint64_t line = address >> l1d.line_bits;
    touch_line(2 * line + written);
    if ((address & line_mask) > straddle_offset) {
        uint64_t last = address + (1ull << qemu_plugin_mem_size_shift(info)) - 1;
        if (last >> l1d.line_bits != line)
            touch_line(2 * (line + 1) + written);
    }
}

/* Almost every access is to the line its set used last; that case is kept free of calls. */
static inline void access_memory(meminfo info, uint64_t address, uint64_t written)
{
    uint64_t key = 2 * (address >> l1d.line_bits) + written;
    uint64_t *set = set_of(&l1d, key);
    if (__builtin_expect((set[0] ^ key) > 1 || (address & line_mask) > straddle_offset, 0)) {
        access_slowly(info, address, written);
        return;
    }
    set[0] |= written;
    totals.l1_accesses++;
}

static void on_load(unsigned vcpu, meminfo info, uint64_t address, void *data)
{
    access_memory(info, address, 0);
}

static void on_store(unsigned vcpu, meminfo info, uint64_t address, void *data)
{
    access_memory(info, address, 1);
}

/* Blocks, in chunks that never move because translated code holds the addresses of the counters. Counters lie together:
 * clearing them in a forked session copies few pages. */
enum { CHUNK = 4096 };
struct block {
    uint64_t address;
    uint32_t *code;
    size_t instructions;
};
struct chunk {
    uint64_t count[CHUNK];
    struct block block[CHUNK];
    size_t used;
    struct chunk *next;
};
static struct chunk *chunks;
static char out_folder[PATH_MAX];

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory) {
        perror("counting plugin");
        _exit(1);
    }
    return memory;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
    if (!chunks || chunks->used == CHUNK) {
        struct chunk *fresh = allocate(sizeof *fresh);
        fresh->next = chunks;
        chunks = fresh;
    }
    struct block *block = &chunks->block[chunks->used];
    block->address = qemu_plugin_tb_vaddr(tb);
    block->instructions = qemu_plugin_tb_n_insns(tb);
    block->code = allocate(block->instructions * sizeof *block->code);
    for (size_t i = 0; i < block->instructions; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        memcpy(&block->code[i], qemu_plugin_insn_data(insn), sizeof *block->code);
        qemu_plugin_register_vcpu_mem_cb(insn, on_load, CB_NO_REGS, MEM_R, NULL);
        qemu_plugin_register_vcpu_mem_cb(insn, on_store, CB_NO_REGS, MEM_W, NULL);
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, OP_ADD_U64, &chunks->count[chunks->used], 1);
    chunks->used++;
}

/* By virtual CPU, of which every thread has one. Those beyond the last share its entry. */
enum { THREADS = 1024 };
static bool used[THREADS], waits[THREADS], ran[THREADS];

static unsigned thread_of(unsigned vcpu)
{
    return vcpu < THREADS ? vcpu : THREADS - 1;
}

static unsigned threads_that_ran(void)
{
    unsigned count = 0;
    for (unsigned thread = 0; thread < THREADS; thread++)
        count += ran[thread];
    return count;
}

static void start(unsigned vcpu)
{
    for (unsigned thread = 0; thread < THREADS; thread++)
        ran[thread] = used[thread] && !waits[thread];
    ran[thread_of(vcpu)] = true; /* it is in this very system call */
    for (struct chunk *chunk = chunks; chunk; chunk = chunk->next)
        memset(chunk->count, 0, chunk->used * sizeof *chunk->count);
    memset(&totals, 0, sizeof totals);
}

/* Lines of text, ended by a line that holds the number of blocks, so that a reader can tell a whole dump. */
static void dump(unsigned long mark)
{
    char name[PATH_MAX + 32], temporary[PATH_MAX + 40];
    snprintf(name, sizeof name, "%s/%d.%lu", out_folder, getpid(), mark);
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    FILE *file = fopen(temporary, "w");
    if (!file)
        return; /* the reader reports the missing dump */
    fprintf(file, "threads %u\nl1_accesses %lu\nl1_misses %lu\nl2_misses %lu\nl2_writebacks %lu\n",
            threads_that_ran(), totals.l1_accesses, totals.l1_misses, totals.l2_misses, totals.l2_writebacks);
    size_t written = 0;
    for (struct chunk *chunk = chunks; chunk; chunk = chunk->next)
        for (size_t i = 0; i < chunk->used; i++) {
            if (!chunk->count[i])
                continue;
            fprintf(file, "block %lu %lx ", chunk->count[i], chunk->block[i].address);
            for (size_t k = 0; k < chunk->block[i].instructions; k++)
                fprintf(file, "%08x", chunk->block[i].code[k]);
            fputc('\n', file);
            written++;
        }
    fprintf(file, "end %zu\n", written);
    bool failed = ferror(file);
    if (fclose(file) || failed || rename(temporary, name))
        unlink(temporary);
}

static void on_syscall(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    waits[thread_of(vcpu)] = true;
    if (number != GETPRIORITY || a1 != MARK)
        return;
    if (a2)
        dump(a2);
    else
        start(vcpu);
}

static void on_syscall_return(plugin_id id, unsigned vcpu, int64_t number, int64_t result)
{
    waits[thread_of(vcpu)] = false;
    ran[thread_of(vcpu)] = true;
}

static void on_thread(plugin_id id, unsigned vcpu)
{
    used[thread_of(vcpu)] = ran[thread_of(vcpu)] = true;
    waits[thread_of(vcpu)] = false;
}

static bool power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static bool make_cache(struct cache *cache, const char *geometry)
{
    unsigned long bytes, ways, line;
    if (sscanf(geometry, "%lu:%lu:%lu", &bytes, &ways, &line) != 3 || !ways || !power_of_two(line))
        return false;
    uint64_t sets = bytes / (ways * line);
    if (!power_of_two(sets) || sets * ways * line != bytes)
        return false;
    cache->entries = allocate(sets * ways * sizeof *cache->entries);
    cache->set_mask = sets - 1;
    cache->ways = ways;
    cache->line_bits = __builtin_ctzl(line);
    return true;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info_t *info, int argc, char **argv)
{
    bool ok = true;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4))
            ok &= realpath(argv[i] + 4, out_folder) != NULL; /* absolute, because the guest may change its folder */
        else if (!strncmp(argv[i], "l1d=", 4))
            ok &= make_cache(&l1d, argv[i] + 4);
        else if (!strncmp(argv[i], "l2=", 3))
            ok &= make_cache(&l2, argv[i] + 3);
        else
            ok = false;
    }
    if (!ok || !out_folder[0] || !l1d.entries || !l2.entries || l1d.line_bits != l2.line_bits) {
        fprintf(stderr, "counting plugin: needs out=DIR,l1d=BYTES:WAYS:LINE,l2=BYTES:WAYS:LINE, powers of two\n");
        return 1;
    }
    line_mask = (1ull << l1d.line_bits) - 1;
    straddle_offset = line_mask + 1 - 16; /* QEMU splits accesses wider than 16 bytes */
    qemu_plugin_register_vcpu_init_cb(id, on_thread);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_syscall_return);
    return 0;
}
