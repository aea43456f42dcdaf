/*
 * A plugin for qemu-x86_64 that counts classes of a program's work (benchmarks/cost_model.py), as JSON in the file that
 * out=FILE names. Written against QEMU 7.2's API; Debian ships no qemu-plugin.h, so what is used is declared here.
 *
 * Caches, TLBs and the branch predictor are simulated: sizes as of Intel's Sapphire Rapids, least recently used, no
 * prefetcher; the predictor is gshare with 16 bits of history. Counts of a translation block that is left early are a
 * little too high.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct tb;
struct insn;
struct info;

EXPORT int qemu_plugin_version = 1;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*cb)(plugin_id id, struct tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *tb, void (*cb)(unsigned int cpu, void *data), int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct insn *insn, void (*cb)(unsigned int cpu, uint32_t info, uint64_t at, void *data),
				      int flags, int rw, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id, void (*cb)(plugin_id id, unsigned int cpu, int64_t number, uint64_t a1,
							       uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
							       uint64_t a6, uint64_t a7, uint64_t a8));
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id id, void (*cb)(plugin_id id, unsigned int cpu, int64_t number, int64_t got));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*cb)(plugin_id id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct tb *tb);
struct insn *qemu_plugin_tb_get_insn(const struct tb *tb, size_t number);
uint64_t qemu_plugin_tb_vaddr(const struct tb *tb);
uint64_t qemu_plugin_insn_vaddr(const struct insn *insn);
size_t qemu_plugin_insn_size(const struct insn *insn);
char *qemu_plugin_insn_disas(const struct insn *insn);
_Bool qemu_plugin_mem_is_store(uint32_t info);

enum { SCALAR, SIMD, MULTIPLY, DIVIDE, BRANCH, CALL, CIPHER, STRING, LOAD, STORE, WIDE, L1_MISS, L2_MISS, L3_MISS, TLB_MISS,
       TLB2_MISS, MISPREDICT, SYSTEM_CALL, COPIED, CLASSES };

static const char *const names[CLASSES] = {
	"scalar", "simd", "multiply", "divide", "branch", "call", "cipher", "string", "load", "store", "wide_8_bytes", "l1_miss",
	"l2_miss", "l3_miss", "tlb_miss", "tlb2_miss", "mispredict", "system_call", "copied_bytes",
};

static uint64_t count[CLASSES];
static char out_path[4096];

/* A set-associative table with least recently used entries first out; keys are 0 when empty. */
struct table {
	unsigned int sets, ways;
	uint64_t *key;
};

static struct table l1 = { 64, 12, NULL }, l2 = { 2048, 16, NULL }, l3 = { 32768, 15, NULL };
static struct table tlb = { 16, 6, NULL }, tlb2 = { 128, 16, NULL };

/* Whether the table has the key; it is the newest of its set afterwards. */
static int hit(struct table *table, uint64_t key)
{
	uint64_t *set = table->key + (key % table->sets) * table->ways;
	unsigned int i;

	for (i = 0; i + 1 < table->ways && set[i] != key + 1; i++)
		;
	int found = set[i] == key + 1;

	memmove(set + 1, set, i * sizeof(*set));
	set[0] = key + 1;
	return found;
}

static void on_memory(unsigned int cpu, uint32_t info, uint64_t at, void *data)
{
	(void)cpu;
	/* QEMU 7.2 makes several accesses of 8 bytes of a wide one */
	count[data ? WIDE : qemu_plugin_mem_is_store(info) ? STORE : LOAD]++;
	if (!hit(&l1, at >> 6)) {
		count[L1_MISS]++;
		if (!hit(&l2, at >> 6)) {
			count[L2_MISS]++;
			if (!hit(&l3, at >> 6))
				count[L3_MISS]++;
		}
	}
	if (!hit(&tlb, at >> 12)) {
		count[TLB_MISS]++;
		if (!hit(&tlb2, at >> 12))
			count[TLB2_MISS]++;
	}
}

struct block {
	uint64_t start, after; /* after: where a conditional branch at its end falls through to; 0: it ends in no such */
	uint32_t kinds[STRING + 1];
};

#define HISTORY_BITS 16
static uint8_t counters[1 << HISTORY_BITS];
static uint32_t history;
static const struct block *last;

static void on_block(unsigned int cpu, void *data)
{
	const struct block *block = data;
	int i;

	(void)cpu;
	for (i = 0; i <= STRING; i++)
		count[i] += block->kinds[i];
	if (last && last->after) {
		uint8_t *counter = &counters[(last->after ^ history) & ((1 << HISTORY_BITS) - 1)];
		int taken = block->start != last->after;

		count[MISPREDICT] += (*counter >= 2) != taken;
		*counter = (uint8_t)(taken ? (*counter < 3 ? *counter + 1 : 3) : (*counter ? *counter - 1 : 0));
		history = (history << 1 | (unsigned int)taken) & ((1 << HISTORY_BITS) - 1);
	}
	last = block;
}

static int starts(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* The kind of an instruction by its disassembly (AT&T's syntax). */
static int kind(const char *text)
{
	if (starts(text, "rep"))
		return STRING;
	if (starts(text, "aes") || starts(text, "vaes") || starts(text, "sha1") || starts(text, "sha256"))
		return CIPHER;
	if (strstr(text, "xmm") || strstr(text, "ymm"))
		return SIMD;
	if (starts(text, "call") || starts(text, "ret") || starts(text, "jmp"))
		return CALL;
	if (text[0] == 'j')
		return BRANCH;
	if (starts(text, "div") || starts(text, "idiv"))
		return DIVIDE;
	if (starts(text, "mul") || starts(text, "imul"))
		return MULTIPLY;
	return SCALAR;
}

static void on_translation(plugin_id id, struct tb *tb)
{
	size_t number = qemu_plugin_tb_n_insns(tb), i;
	struct block *block = calloc(1, sizeof(*block));
	int last_kind = SCALAR;

	(void)id;
	if (!block)
		abort();
	block->start = qemu_plugin_tb_vaddr(tb);
	for (i = 0; i < number; i++) {
		struct insn *insn = qemu_plugin_tb_get_insn(tb, i);
		char *text = qemu_plugin_insn_disas(insn);

		last_kind = kind(text);
		block->kinds[last_kind]++;
		if (last_kind == BRANCH)
			block->after = qemu_plugin_insn_vaddr(insn) + qemu_plugin_insn_size(insn);
		free(text);
		qemu_plugin_register_vcpu_mem_cb(insn, on_memory, 0, 3, last_kind == SIMD ? block : NULL);
	}
	if (last_kind != BRANCH)
		block->after = 0;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, 0, block);
}

static void on_call(plugin_id id, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
		    uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
	(void)id, (void)cpu, (void)number, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
	count[SYSTEM_CALL]++;
}

static void on_return(plugin_id id, unsigned int cpu, int64_t number, int64_t got)
{
	(void)id, (void)cpu;
	if (got > 0 && (number <= 1 || number == 17 || number == 18)) /* read, write, pread64, pwrite64 */
		count[COPIED] += (uint64_t)got;
}

static void on_end(plugin_id id, void *data)
{
	FILE *out = fopen(out_path, "w");
	int i;

	(void)id, (void)data;
	if (!out)
		return;
	for (i = 0; i < CLASSES; i++)
		fprintf(out, "%c\"%s\":%llu", i ? ',' : '{', names[i], (unsigned long long)count[i]);
	fputs("}\n", out);
	fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct info *info, int argc, char **argv)
{
	struct table *tables[] = { &l1, &l2, &l3, &tlb, &tlb2 };
	size_t i;

	(void)info;
	for (i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		tables[i]->key = calloc((size_t)tables[i]->sets * tables[i]->ways, sizeof(uint64_t));
		if (!tables[i]->key)
			return 1;
	}
	if (argc != 1 || strncmp(argv[0], "out=", 4) || strlen(argv[0]) >= sizeof(out_path))
		return 1;
	strcpy(out_path, argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_vcpu_syscall_cb(id, on_call);
	qemu_plugin_register_vcpu_syscall_ret_cb(id, on_return);
	qemu_plugin_register_atexit_cb(id, on_end, NULL);
	return 0;
}
