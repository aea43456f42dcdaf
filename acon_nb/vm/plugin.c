/*
 * A TCG plugin of QEMU that counts executed instructions by function.
 *
 *   -plugin counts.so,starts=FILE,out=FILE
 *
 * starts: the addresses, sorted, 8 bytes each, at which functions start; what lies between two belongs to the first.
 * They hold once the kernel runs at its virtual addresses; what ran before is counted by 64 KiB of its addresses.
 * out: a block of lines for each mark that the guest executes (guest/src/mark.h) and one, "end", when QEMU exits:
 *
 *   mark NUMBER TSC IDLE      IDLE: ns of idle time that QEMU has skipped so far, or -1 where it cannot be known;
 *                             number 0: a place in a kernel's image (guest/src/milestone.S), which says no TSC
 *                             number 254: the first instruction of user space, no TSC either
 *   end 0 CLOCK IDLE          CLOCK: as a TSC, or 0 where it cannot be known
 *   NUMBER COUNT              instructions counted from that address of `starts` to the next
 *   physical ADDRESS COUNT    instructions counted in 64 KiB before the kernel ran
 *   user HASH OFFSET COUNT    with programs=on: instructions of user space (programs.c)
 *   module ADDRESS BYTES COUNT   ... and of modules
 *   .
 *
 * Instructions are counted one by one, before each: a block is left early when one of its instructions faults. One that
 * faults is counted again when it is repeated, and QEMU's clock does not; so the clock less the idle time is what was
 * executed, and the counts say where.
 *
 * Built once for each version of QEMU's API that differs in what is used: 1 (QEMU 7.2), 2 (inline operations on
 * scoreboards), 3 (instructions are copied), 7 (QEMU 11.1: user data in all callbacks). No Debian package has
 * qemu-plugin.h, so what is used of it is declared in plugin.h. With kinds=FILE also the call tree is counted: calls.c.
 * Source: QEMU's qemu-plugin.h, "Versioning plugins"; accel/tcg/icount-common.c.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"

#define GRAIN_SHIFT 16
#define PHYSICAL_COUNTERS (1u << 16) /* 4 GiB; what lies above shares the last */
#define USER_MOMENT 254

/* Not of the API, but exported by a QEMU that loads modules, as Debian's does. */
__attribute__((weak)) int64_t icount_get(void);
__attribute__((weak)) int64_t icount_get_raw(void);

EXPORT int qemu_plugin_version = API;

uint64_t *starts;
size_t starts_count;
static counters_t counters; /* of each start, then of each 64 KiB of physical memory */
static size_t counters_count;
static uint64_t *snapshot;
static FILE *out;
static bool kernel_runs, user_ran, with_calls, with_programs;
static struct {
	int bits;
	int64_t idle_ns;
	uint64_t tsc, number;
} mark = { .bits = -1 };

uint64_t counted(size_t index)
{
	return count_of(counters, index);
}

static size_t counter_of(uint64_t address)
{
	static size_t last; /* most instructions are of the function of the one before */
	size_t low = 0, high = starts_count;

	if (!kernel_runs) {
		uint64_t grain = address >> GRAIN_SHIFT;

		return starts_count + (grain < PHYSICAL_COUNTERS ? grain : PHYSICAL_COUNTERS - 1);
	}
	if (starts[last] <= address && (last + 1 == starts_count || address < starts[last + 1]))
		return last;
	while (high - low > 1) {
		size_t middle = (low + high) / 2;

		if (starts[middle] <= address)
			low = middle;
		else
			high = middle;
	}
	last = low;
	return low;
}

struct reading {
	int64_t clock_ns, idle_ns;
};

/* In a thread of its own: within a block the vCPU's may not read its clock. The vCPU waits, so the clock stands. */
static void *read_clock(void *result)
{
	struct reading *reading = result;
	int64_t before, clock, after;

	do {
		before = icount_get_raw();
		clock = icount_get();
		after = icount_get_raw();
	} while (before != after);
	*reading = (struct reading){ clock, clock - after };
	return NULL;
}

/* The clock is right between blocks only; its idle time always is. */
static struct reading clock_now(void)
{
	struct reading now = { 0, -1 };
	pthread_t thread;

	if (icount_get && icount_get_raw && !pthread_create(&thread, NULL, read_clock, &now))
		pthread_join(thread, NULL);
	return now;
}

static void take_snapshot(void)
{
	if (with_calls)
		calls_write(out);
	for (size_t i = 0; i < counters_count; i++)
		snapshot[i] = counted(i);
	if (with_programs)
		programs_take();
}

static void write_snapshot(void)
{
	for (size_t i = 0; i < counters_count; i++) {
		if (!snapshot[i])
			continue;
		if (i < starts_count)
			fprintf(out, "%zu %llu\n", i, (unsigned long long)snapshot[i]);
		else
			fprintf(out, "physical %llu %llu\n", (unsigned long long)(i - starts_count) << GRAIN_SHIFT,
				(unsigned long long)snapshot[i]);
	}
	if (with_programs)
		programs_write(out);
	fputs(".\n", out);
	fflush(out);
}

static void at_mark(unsigned int vcpu, void *data)
{
	count_one(counters, (uintptr_t)data, vcpu);
	take_snapshot();
	mark.idle_ns = clock_now().idle_ns;
	mark.bits = 0;
	mark.tsc = mark.number = 0;
}

static void at_bit(unsigned int vcpu, void *data)
{
	uint64_t bit = (uintptr_t)data;

	(void)vcpu;
	if (mark.bits >= 0 && mark.bits < 64)
		mark.tsc |= bit << mark.bits;
	else if (mark.bits >= 64 && mark.bits < 72)
		mark.number |= bit << (mark.bits - 64);
	if (mark.bits >= 0)
		mark.bits++;
}

static void at_mark_end(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	if (mark.bits == 72) {
		fprintf(out, "mark %llu %llu %lld\n", (unsigned long long)mark.number, (unsigned long long)mark.tsc,
			(long long)mark.idle_ns);
		write_snapshot();
	}
	mark.bits = -1;
}

/* Without the place's own instructions, which no other guest has: this one and the one before it. */
static void at_place(unsigned int vcpu, void *data)
{
	take_snapshot();
	snapshot[(uintptr_t)data]--;
	count_one(counters, (uintptr_t)data, vcpu);
	fprintf(out, "mark 0 0 %lld\n", (long long)clock_now().idle_ns);
	write_snapshot();
}

/* The first instruction of user space, once the kernel runs; what is before it has been counted. */
static void at_user(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	if (user_ran)
		return;
	user_ran = true;
	take_snapshot();
	fprintf(out, "mark %d 0 %lld\n", USER_MOMENT, (long long)clock_now().idle_ns);
	write_snapshot();
}

void read_bytes(const struct qemu_plugin_insn *insn, uint8_t *bytes, size_t size)
{
#if API >= 3
	qemu_plugin_insn_data(insn, bytes, size);
#else
	memcpy(bytes, qemu_plugin_insn_data(insn), size);
#endif
}

/* Whether the instruction is a mark, which then counts itself: the snapshot must have it. */
static bool is_mark(struct qemu_plugin_insn *insn, size_t index)
{
	static const uint8_t moment[] = { 0x3e, 0x26, 0x3e, 0x26, 0x0f, 0x31 };
	static const uint8_t place[] = { 0x3e, 0x26, 0x3e, 0x2e, 0x0f, 0x31 };
	static const uint8_t no_op[] = { 0x0f, 0x1f, 0x80, 'N', 'O', 'C' };
	size_t size = qemu_plugin_insn_size(insn);
	uint8_t bytes[7];

	if (size != sizeof(moment) && size != sizeof(no_op) + 1)
		return false;
	read_bytes(insn, bytes, size);
	if (size == sizeof(moment)) {
		exec_cb callback = !memcmp(bytes, moment, size) ? at_mark : !memcmp(bytes, place, size) ? at_place : NULL;

		if (callback)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, NO_REGS, (void *)(uintptr_t)index);
		return callback != NULL;
	}
	if (!memcmp(bytes, no_op, sizeof(no_op))) {
		if (bytes[6] == '0' || bytes[6] == '1')
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_bit, NO_REGS, (void *)(uintptr_t)(bytes[6] - '0'));
		else if (bytes[6] == 'E')
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_mark_end, NO_REGS, NULL);
	}
	return false;
}

static void instrument(struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb), index = 0, last;
	struct user_page page = { NULL, 0 };

	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);

		if (address >= KERNEL_BASE)
			kernel_runs = true;
		else if (kernel_runs && !user_ran && i == 0)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_user, NO_REGS, NULL);
		last = index;
		index = counter_of(address);
		if (with_calls && address >= KERNEL_BASE)
			calls_instrument(insn, index, i == 0 || index != last);
		if (is_mark(insn, index))
			continue;
		count_inline(counters, index, insn);
		if (with_programs && kernel_runs)
			programs_instrument(insn, address, &page);
	}
}

static void finish(void)
{
	struct reading now = clock_now();

	take_snapshot();
	fprintf(out, "end 0 %lld %lld\n", (long long)now.clock_ns, (long long)now.idle_ns);
	write_snapshot();
	fclose(out);
}

#if API >= 7
static void translated(struct qemu_plugin_tb *tb, void *data)
{
	(void)data;
	instrument(tb);
}

static void ended(void *data)
{
	(void)data;
	finish();
}

static void register_callbacks(qemu_plugin_id_t id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
}
#else
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	instrument(tb);
}

static void ended(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	finish();
}

static void register_callbacks(qemu_plugin_id_t id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
}
#endif

static bool read_starts(const char *path)
{
	FILE *file = fopen(path, "rb");
	long size;

	if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) <= 0 || size % 8 || fseek(file, 0, SEEK_SET))
		return false;
	starts_count = (size_t)size / 8;
	starts = malloc((size_t)size);
	if (!starts || fread(starts, 8, starts_count, file) != starts_count)
		return false;
	fclose(file);
	return true;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	const char *starts_path = NULL, *out_path = NULL, *kinds_path = NULL;

	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "starts=", 7))
			starts_path = argv[i] + 7;
		else if (!strncmp(argv[i], "out=", 4))
			out_path = argv[i] + 4;
		else if (!strncmp(argv[i], "kinds=", 6))
			kinds_path = argv[i] + 6;
		else if (!strcmp(argv[i], "programs=on"))
			with_programs = true;
	}
	if (!info->system_emulation || !starts_path || !out_path || !read_starts(starts_path)) {
		fputs("counts: needs starts=FILE (8 bytes an address) and out=FILE\n", stderr);
		return 1;
	}
	counters_count = starts_count + PHYSICAL_COUNTERS;
	snapshot = calloc(counters_count, sizeof(*snapshot));
	out = fopen(out_path, "w");
	with_calls = kinds_path != NULL;
	counters = counters_new(counters_count);
	if (!snapshot || !out || !counters || (with_calls && !calls_begin(kinds_path)) ||
	    (with_programs && !programs_begin())) {
		perror("counts");
		return 1;
	}
	register_callbacks(id);
	return 0;
}
