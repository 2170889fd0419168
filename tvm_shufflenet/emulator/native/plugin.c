/* Counts what a guest program executes between two marks, for the cycle model to price.
 *
 * A QEMU TCG plugin for aarch64 guests that compute in one thread. For every translated block it counts how often it
 * ran, after which block, and what its loads and stores did in a model of a first and a second level data cache (least
 * recently used, write-allocate, write-back). What QEMU does not report as an access is not seen: prfm and dc zva.
 * Nothing is fetched ahead; instead, a miss that nobody has to wait for is counted apart: one that continues a stream of
 * misses, which a hardware prefetcher sees coming, and one so few instructions after another that both are under way at
 * the same time. The guest marks a region with a system call that does nothing else:
 *
 *   getpriority(0x7e57, 0)   counts start at zero; the caches keep their contents, as a warm core does
 *   getpriority(0x7e57, k)   the counts so far are written to OUT/PID.k
 *   getpriority(0x7e59)      the caches are emptied: what ran before depends on the world outside; this process serves
 *                            a client from now on, and may do no more than one needs
 *
 * Several cores are modelled one after the other in the guest's single thread: between these calls it does the share of
 * one of them in a parallel region, on a first level cache of its own and with counts of their own.
 *
 *   getpriority(0x7e58, core, region)   the share of a core begins; a region is named by its code's address
 *   getpriority(0x7e58, -1)             the region has ended, core 0 goes on by itself
 *
 * With the counts goes the number of threads that ran between the marks, so that nobody prices more than one of them;
 * one that spent the time waiting in a system call did not run.
 *
 * QEMU is no boundary between its guest and itself, so it is QEMU's process that is confined, from here: it gives up the
 * files that are not its folder or what is in the list of ``read``, and a client's process most system calls.
 *
 * With ``tells``, where a client's process has its files is left in OUT/PID.folder.
 *
 * Arguments: out=DIR,read=FILE,tells=1,l1d=BYTES:WAYS:LINE,l2=BYTES:WAYS:LINE,window=INSTRUCTIONS,cores=N,trace=1. With the last, the
 * numbers of the blocks that ran between the marks go to OUT/PID.k.trace, in this order, as 32-bit words.
 * A fork copies all state, so each forked session counts for itself and writes under its own process id.
 */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "landlock.h"
#include "system_calls.h"

/* The part of QEMU's plugin interface used here; its header is not packaged. PLUGIN_API is the interface's version: 1 up
 * to QEMU 8, 2 in 9.0, 3 from 9.1 on, which copies an instruction's bytes where 1 and 2 point to them. */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t plugin_id;
typedef uint32_t meminfo;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
enum { CB_NO_REGS = 0, MEM_RW = 3 };
typedef void (*mem_callback)(unsigned vcpu, meminfo, uint64_t address, void *data);
typedef void (*syscall_callback)(plugin_id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                                 uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned vcpu));
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned vcpu, void *data), int flags,
                                          void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_callback, int flags, int rw, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_callback);
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, void (*)(plugin_id, unsigned vcpu, int64_t number, int64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
#if PLUGIN_API < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, size_t size);
#endif
unsigned qemu_plugin_mem_size_shift(meminfo);
bool qemu_plugin_mem_is_store(meminfo);
EXPORT int qemu_plugin_version = PLUGIN_API;

enum { EXIT_GROUP = 94, GETPRIORITY = 141, MARK = 0x7e57, SHARE = 0x7e58, EMPTY = 0x7e59 };

/* Translated blocks, numbered from 1 as QEMU translates them. */
enum { BLOCKS = 1 << 18, EDGES = 6, HISTORY = 64, STREAMS = 16 };
struct block {
    uint64_t address;
    uint32_t *code;
    size_t instructions;
};
static struct block *blocks;
static uint32_t translated = 1;

/* How a block was reached: from which block how often, and where the blocks before it on one of these occasions are. */
struct edge {
    uint64_t count;
    uint32_t from, history;
};

/* What the accesses of a block did. A miss is of a load or a store, goes to L2 or beyond, hides behind others or not. */
enum { BEYOND_L2 = 1, HIDDEN = 2, STORE = 4, MISS_KINDS = 8 };
struct stats {
    uint64_t count, accesses, misses[MISS_KINDS], l1_writebacks, l2_writebacks;
    struct edge edges[EDGES];
    uint32_t block;
    struct section *section;
};
static struct stats *now; /* of the block that runs, in the section that runs */

/* Statistics and histories are taken in the order in which they are needed: a forked session, which gets a page of its
 * own for each that it writes to, then writes to few. The first of either belongs to no block. */
enum { STATISTICS = 1 << 20, HISTORIES = 1 << 21 };
static struct stats *statistics;
static uint32_t (*histories)[HISTORY], used_statistics, used_histories;

/* Counts of the code that core 0 runs by itself, and of each core's share of each parallel region. */
enum { SECTIONS = 4096 };
struct section {
    uint64_t region, core, launches;
    uint32_t *place; /* of a block's statistics, 0 for one that has not run */
    uint32_t *executed, executed_blocks; /* the places in the order of the blocks' first runs */
};
static struct section *sections[SECTIONS], *section;
static unsigned section_count;

/* Caches. A set is an array of entries, most recently used first; an entry is 2 * line number + 1 if it was written to.
 * Entry 0 is free: the guest never maps line 0. */
struct cache {
    uint64_t *entries, set_mask;
    unsigned ways;
};

/* What a core keeps from one share to the next. */
enum { MAX_CORES = 16 };
struct core {
    struct cache l1d;
    struct stream *streams;
    uint32_t history[HISTORY], steps; /* the blocks that ran last, a ring */
    uint64_t instructions, waited[2]; /* executed so far, and when a load last had to wait for L2 and for memory */
};
static struct core cores[MAX_CORES], *core = cores;
static unsigned core_count = 1;
static uint64_t window; /* how many instructions a core has under way at once */

static struct cache l2; /* all cores share it */
static struct cache l1d; /* of the core that runs */
static unsigned line_bits;
static uint64_t line_mask, straddle_offset; /* an access that starts above this offset may reach into the next line */

static inline uint64_t *set_of(const struct cache *cache, uint64_t key)
{
    return cache->entries + ((key >> 1) & cache->set_mask) * cache->ways;
}

static void empty(const struct cache *cache)
{
    memset(cache->entries, 0, (cache->set_mask + 1) * cache->ways * sizeof *cache->entries);
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

/* Streams of misses to consecutive lines, most recent first: each holds the line it expects next, and its direction. */
struct stream {
    uint64_t next;
    int step;
};

static void remember(unsigned slot, struct stream stream)
{
    memmove(core->streams + 1, core->streams, slot * sizeof stream);
    core->streams[0] = stream;
}

/* Whether a miss of ``line`` continues a stream. One that does not starts two, for nobody knows its direction yet. */
static bool expected(uint64_t line)
{
    for (unsigned slot = 0; slot < STREAMS; slot++)
        if (core->streams[slot].next == line && core->streams[slot].step) {
            struct stream stream = core->streams[slot];
            stream.next += stream.step;
            remember(slot, stream);
            return true;
        }
    remember(STREAMS - 1, (struct stream){line - 1, -1});
    remember(STREAMS - 1, (struct stream){line + 1, 1});
    return false;
}

/* Whether a miss comes as expected, or in the shadow of one that takes at least as long. */
static bool hidden(uint64_t line, unsigned kind)
{
    if (expected(line))
        return true;
    if (kind & STORE)
        return false; /* nobody waits for it either, but it casts no shadow */
    for (unsigned level = kind & BEYOND_L2; level < 2; level++)
        if (core->instructions - core->waited[level] < window)
            return true;
    core->waited[kind & BEYOND_L2] = core->instructions;
    return false;
}

static void touch_line(uint64_t key)
{
    uint64_t evicted, evicted_from_l2;
    now->accesses++;
    if (touch(&l1d, key, &evicted))
        return;
    unsigned kind = (key & 1 ? STORE : 0) | (touch(&l2, key & ~1ull, &evicted_from_l2) ? 0 : BEYOND_L2);
    now->misses[kind | (hidden(key >> 1, kind) ? HIDDEN : 0)]++;
    now->l2_writebacks += evicted_from_l2 & 1;
    if (evicted & 1) { /* a written line goes back to L2 */
        now->l1_writebacks++;
        touch(&l2, evicted, &evicted_from_l2);
        now->l2_writebacks += evicted_from_l2 & 1;
    }
}

static __attribute__((noinline)) void access_slowly(meminfo info, uint64_t address, uint64_t written)
{
    uint64_t line = address >> line_bits;
    touch_line(2 * line + written);
    if ((address & line_mask) > straddle_offset) {
        uint64_t last = address + (1ull << qemu_plugin_mem_size_shift(info)) - 1;
        if (last >> line_bits != line)
            touch_line(2 * (line + 1) + written);
    }
}

/* Almost every access is to the line its set used last; that case is kept free of calls. */
static inline void access_memory(meminfo info, uint64_t address, uint64_t written)
{
    uint64_t key = 2 * (address >> line_bits) + written;
    uint64_t *set = set_of(&l1d, key);
    if (__builtin_expect((set[0] ^ key) > 1 || (address & line_mask) > straddle_offset, 0)) {
        access_slowly(info, address, written);
        return;
    }
    set[0] |= written;
    now->accesses++;
}

/* One callback for both: with one for loads and one for stores, QEMU 7.2 reports loads as stores. */
static void on_access(unsigned vcpu, meminfo info, uint64_t address, void *data)
{
    access_memory(info, address, qemu_plugin_mem_is_store(info));
}

static void fail(const char *what)
{
    fprintf(stderr, "counting plugin: %s\n", what);
    _exit(1);
}

/* A number that no other thread gets: nobody prices what several did, but it must not spoil what is counted after. */
static uint32_t one_more(uint32_t *used, uint32_t limit)
{
    uint32_t number = __atomic_add_fetch(used, 1, __ATOMIC_RELAXED);
    if (number >= limit)
        fail("the guest runs more code than the plugin has room for");
    return number;
}

/* A place for the statistics of a block that has not run in this section. */
static uint32_t first_run_of(uint32_t block)
{
    uint32_t place = one_more(&used_statistics, STATISTICS);
    statistics[place].block = block;
    statistics[place].section = section;
    section->executed[section->executed_blocks++] = place;
    return section->place[block] = place;
}

/* The blocks that ran before, oldest first. Taken ever more rarely: the last one stands for the whole. */
static void remember_history(struct edge *edge)
{
    if (!edge->history)
        edge->history = one_more(&used_histories, HISTORIES);
    for (unsigned i = 0; i < HISTORY; i++)
        histories[edge->history][i] = core->history[(core->steps + i) % HISTORY];
}

static bool traced;
static FILE *trace; /* NULL unless it was asked for and counts are being taken */

static bool counting; /* between the marks; outside, only the caches are kept up to date */

static void on_execution(unsigned vcpu, void *data)
{
    if (!counting)
        return;
    uint32_t self = (uint32_t)(uintptr_t)data, from = core->history[(core->steps + HISTORY - 1) % HISTORY];
    uint32_t place = section->place[self];
    now = &statistics[place ? place : first_run_of(self)];
    now->count++;
    for (struct edge *edge = now->edges; edge < now->edges + EDGES; edge++) {
        if (!edge->count)
            edge->from = from;
        if (edge->from == from) {
            edge->count++;
            if (__builtin_expect((edge->count & (edge->count - 1)) == 0, 0))
                remember_history(edge);
            break;
        }
    }
    core->history[core->steps++ % HISTORY] = self;
    core->instructions += blocks[self].instructions;
    if (__builtin_expect(trace != NULL, 0))
        fwrite(&self, sizeof self, 1, trace);
}

static char out_folder[PATH_MAX];

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

static void *sparse(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no address space");
    return memory;
}

/* From now on, counts go to this section, and ``on`` is the core that runs. */
static void enter(uint64_t region, uint64_t on)
{
    core = &cores[on % core_count];
    l1d = core->l1d;
    memset(core->history, 0, sizeof core->history);
    unsigned index = 0;
    while (index < section_count && (sections[index]->region != region || sections[index]->core != on))
        index++;
    if (index == section_count) {
        if (section_count == SECTIONS)
            fail("the guest has more parallel regions than the plugin has room for");
        sections[section_count++] = allocate(sizeof **sections);
        sections[index]->region = region;
        sections[index]->core = on;
        sections[index]->place = sparse(BLOCKS * sizeof(uint32_t));
        sections[index]->executed = sparse(BLOCKS * sizeof(uint32_t));
    }
    section = sections[index];
    section->launches++;
    now = statistics;
}

static void copy_code(struct qemu_plugin_insn *insn, uint32_t *to)
{
#if PLUGIN_API < 3
    memcpy(to, qemu_plugin_insn_data(insn), sizeof *to);
#else
    qemu_plugin_insn_data(insn, to, sizeof *to);
#endif
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
    if (translated == BLOCKS)
        fail("the guest has more code than the plugin has room for");
    struct block *block = &blocks[translated];
    block->address = qemu_plugin_tb_vaddr(tb);
    block->instructions = qemu_plugin_tb_n_insns(tb);
    block->code = allocate(block->instructions * sizeof *block->code);
    for (size_t i = 0; i < block->instructions; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        copy_code(insn, &block->code[i]);
        qemu_plugin_register_vcpu_mem_cb(insn, on_access, CB_NO_REGS, MEM_RW, NULL);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execution, CB_NO_REGS, (void *)(uintptr_t)translated);
    translated++;
}

/* By virtual CPU, of which every thread has one. There are no more threads than this. */
enum { THREADS = 256 };
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

static char unfinished_trace[PATH_MAX + 32];

static void begin_trace(void)
{
    if (trace)
        fclose(trace);
    snprintf(unfinished_trace, sizeof unfinished_trace, "%s/%d.trace.tmp", out_folder, getpid());
    trace = fopen(unfinished_trace, "w"); /* the reader reports the missing trace */
}

static void end_trace(const char *counts)
{
    char name[PATH_MAX + 40];
    snprintf(name, sizeof name, "%s.trace", counts);
    bool failed = ferror(trace);
    if (fclose(trace) || failed || rename(unfinished_trace, name))
        unlink(unfinished_trace);
    trace = NULL;
}

static void start(unsigned vcpu)
{
    if (traced)
        begin_trace();
    for (unsigned thread = 0; thread < THREADS; thread++)
        ran[thread] = used[thread] && !waits[thread];
    ran[thread_of(vcpu)] = true; /* it is in this very system call */
    for (unsigned i = 0; i < section_count; i++)
        sections[i]->launches = sections[i]->executed_blocks = 0;
    for (const struct stats *of = statistics + 1; of <= statistics + used_statistics; of++)
        of->section->place[of->block] = 0;
    madvise(statistics, (used_statistics + 1) * sizeof *statistics, MADV_DONTNEED); /* reads as zero again */
    used_statistics = used_histories = 0;
    for (unsigned i = 0; i < core_count; i++)
        cores[i].instructions += window; /* a first miss is in nobody's shadow */
    enter(0, 0);
    counting = true;
}

/* Lines of text, ended by a line that holds the number of blocks, so that a reader can tell a whole dump. */
static void dump_block(FILE *file, const struct stats *of)
{
    uint32_t self = of->block;
    fprintf(file, "block %u %lu %lx %lu", self, of->count, blocks[self].address, of->accesses);
    for (unsigned kind = 0; kind < MISS_KINDS; kind++)
        fprintf(file, " %lu", of->misses[kind]);
    fprintf(file, " %lu %lu ", of->l1_writebacks, of->l2_writebacks);
    for (size_t k = 0; k < blocks[self].instructions; k++)
        fprintf(file, "%08x", blocks[self].code[k]);
    fputc('\n', file);
    for (const struct edge *edge = of->edges; edge < of->edges + EDGES && edge->count; edge++) {
        fprintf(file, "edge %lu", edge->count);
        for (unsigned i = 0; i < HISTORY; i++)
            if (histories[edge->history][i])
                fprintf(file, " %u", histories[edge->history][i]);
        fputc('\n', file);
    }
}

static void dump(unsigned long mark)
{
    counting = false;
    char name[PATH_MAX + 32], temporary[PATH_MAX + 40];
    snprintf(name, sizeof name, "%s/%d.%lu", out_folder, getpid(), mark);
    if (trace)
        end_trace(name);
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    FILE *file = fopen(temporary, "w");
    if (!file)
        return; /* the reader reports the missing dump */
    fprintf(file, "threads %u\n", threads_that_ran());
    uint32_t written = 0;
    for (unsigned i = 0; i < section_count; i++) {
        section = sections[i];
        if (section->launches)
            fprintf(file, "section %lx %lu %lu\n", section->region, section->core, section->launches);
        for (uint32_t k = 0; k < section->executed_blocks; k++, written++)
            dump_block(file, &statistics[section->executed[k]]);
    }
    section = sections[0];
    now = statistics;
    fprintf(file, "end %u\n", written);
    bool failed = ferror(file);
    if (fclose(file) || failed || rename(temporary, name))
        unlink(temporary);
}

static void empty_caches(void)
{
    empty(&l2);
    for (unsigned i = 0; i < core_count; i++) {
        empty(&cores[i].l1d);
        memset(cores[i].streams, 0, STREAMS * sizeof *cores[i].streams);
    }
}

static bool tells;

static void tell_folder(void)
{
    char name[PATH_MAX + 32], folder[PATH_MAX];
    snprintf(name, sizeof name, "%s/%d.folder", out_folder, getpid());
    FILE *file = getcwd(folder, sizeof folder) ? fopen(name, "w") : NULL;
    if (file) { /* the reader tells nothing without */
        fputs(folder, file);
        fclose(file);
    }
}

/* The calls of a process that serves a client. With those of QEMU's other thread, which the client's code can reach. */
static void confine_session(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    if (tells)
        tell_folder();
    struct call_filter filter;
    session_filter(&filter, EMULATED_SESSION, (uint32_t)getpid());
    struct sock_fprog program = program_of(&filter);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0 && errno != ENOSYS &&
        errno != EINVAL) /* a kernel without filters */
        fail("cannot filter system calls");
}

/* What QEMU's process needs no more, once it has loaded its libraries: before its guest's program starts. */
static bool confine_process(const char *list)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    const struct rlimit nothing = {0, 0};
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* nobody of the same user looks into it or writes to it */
    setrlimit(RLIMIT_CORE, &nothing);
    setrlimit(RLIMIT_MEMLOCK, &nothing);
    for (int capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    syscall(SYS_capset, &header, none);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int version = landlock_version();
    FILE *names = fopen(list, "r");
    if (!names || !version) {
        if (names)
            fclose(names);
        return names != NULL;
    }
    int rules = landlock_begin(version, 0);
    char name[PATH_MAX];
    while (fgets(name, sizeof name, names)) {
        name[strcspn(name, "\n")] = 0;
        landlock_allow(rules, version, name, TO_READ);
    }
    fclose(names);
    landlock_allow_system(rules, version);
    landlock_allow(rules, version, ".", TO_READ | TO_WRITE);
    landlock_allow(rules, version, out_folder, TO_READ | TO_WRITE);
    return landlock_end(rules) == 0;
}

static void on_syscall(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    waits[thread_of(vcpu)] = true;
    if (number == EXIT_GROUP)
        _exit(a1); /* QEMU would take apart all translations first, and a forked session copy each page to do so */
    if (number == GETPRIORITY && a1 == SHARE)
        enter(a2 < core_count ? a3 : 0, a2 < core_count ? a2 : 0);
    if (number == GETPRIORITY && a1 == EMPTY) {
        empty_caches();
        confine_session();
    }
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
    if (vcpu >= THREADS)
        fail("the guest starts more threads than the plugin has room for");
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
    bool same_lines = !line_bits || line_bits == __builtin_ctzl(line);
    line_bits = __builtin_ctzl(line);
    return same_lines;
}

static bool make_core(struct core *made, const char *geometry)
{
    made->streams = allocate(STREAMS * sizeof *made->streams);
    return make_cache(&made->l1d, geometry);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info_t *info, int argc, char **argv)
{
    const char *of_l1d = "", *readable = "";
    bool ok = true;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4))
            ok &= realpath(argv[i] + 4, out_folder) != NULL; /* absolute, because the guest may change its folder */
        else if (!strncmp(argv[i], "read=", 5))
            readable = argv[i] + 5;
        else if (!strncmp(argv[i], "tells=", 6))
            tells = atoi(argv[i] + 6);
        else if (!strncmp(argv[i], "l1d=", 4))
            of_l1d = argv[i] + 4;
        else if (!strncmp(argv[i], "l2=", 3))
            ok &= make_cache(&l2, argv[i] + 3);
        else if (!strncmp(argv[i], "window=", 7))
            window = strtoul(argv[i] + 7, NULL, 10);
        else if (!strncmp(argv[i], "cores=", 6))
            core_count = atoi(argv[i] + 6);
        else if (!strncmp(argv[i], "trace=", 6))
            traced = atoi(argv[i] + 6);
        else
            ok = false;
    }
    ok &= core_count > 0 && core_count <= MAX_CORES;
    for (unsigned i = 0; ok && i < core_count; i++)
        ok = make_core(&cores[i], of_l1d);
    if (!ok || !out_folder[0] || !l2.entries) {
        fprintf(stderr, "counting plugin: needs out=DIR,l1d=BYTES:WAYS:LINE,l2=BYTES:WAYS:LINE, powers of two and lines "
                        "of one length, and at most %d cores\n", MAX_CORES);
        return 1;
    }
    line_mask = (1ull << line_bits) - 1;
    straddle_offset = line_mask + 1 - 16; /* QEMU splits accesses wider than 16 bytes */
    blocks = sparse(BLOCKS * sizeof *blocks);
    statistics = sparse(STATISTICS * sizeof *statistics);
    histories = sparse(HISTORIES * sizeof *histories);
    enter(0, 0);
    if (*readable && !confine_process(readable))
        fail("cannot confine QEMU to its files");
    qemu_plugin_register_vcpu_init_cb(id, on_thread);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_syscall_return);
    return 0;
}
