/*
 * Instructions of programs and modules one by one, a part of the plugin (plugin.c).
 *
 * Programs share addresses, and the plugin knows no processes. What tells their code apart is what is in it: a page of a
 * file is the same in memory. So an instruction of user space is counted by a hash of the 4 KiB that it lies in, and
 * its offset there. A module is changed as it is loaded, and where is known to the kernel alone; its instructions are
 * counted by address and by what they are, since another module may come where one was.
 *
 *   user HASH OFFSET COUNT       before a snapshot's end; HASH and
 *   module ADDRESS BYTES COUNT   ADDRESS and BYTES in hexadecimal
 *
 * These instructions are counted by `starts`, too. What finds no room here is counted there alone. HASH: the page's 512
 * words, little-endian, as the digits of a number to the base MULTIPLIER, modulo 2^64 (profile/programs.py computes it
 * of files; profile/modules.py looks for modules).
 */
#include <stdlib.h>
#include <string.h>

#include "counters.h"

#define PAGE 4096u
#define MULTIPLIER 0x9e3779b97f4a7c15u
#define SLOTS (1u << 17)
#define TABLE_SHIFT 18
#define LONGEST 15 /* bytes of an instruction */

struct place {
	uint64_t where; /* the hash of a program's page, or a module's address */
	uint32_t offset; /* in the page */
	uint32_t slot; /* one more than its number, 0: none */
	uint8_t bytes[LONGEST], size; /* of a module's instruction; a program's has no size */
};

static struct place *table;
static uint32_t *places; /* where each slot is in the table */
static uint32_t used;
static uint64_t *taken;
static uint32_t taken_count;
static counters_t counters;

static uint64_t hash_of(const unsigned char *page)
{
	uint64_t hash = 0, word;

	for (size_t i = 0; i < PAGE; i += sizeof(word)) {
		memcpy(&word, page + i, sizeof(word));
		hash = hash * MULTIPLIER + word;
	}
	return hash;
}

static bool is_same(const struct place *one, const struct place *other)
{
	return one->where == other->where && one->offset == other->offset && one->size == other->size &&
	       !memcmp(one->bytes, other->bytes, LONGEST);
}

static void count_at(struct qemu_plugin_insn *insn, struct place place)
{
	uint32_t at = ((place.where ^ place.offset) * MULTIPLIER) >> (64 - TABLE_SHIFT);

	while (table[at].slot && !is_same(&table[at], &place))
		at = (at + 1) % (1u << TABLE_SHIFT);
	if (!table[at].slot) {
		if (used == SLOTS)
			return;
		places[used++] = at;
		place.slot = used;
		table[at] = place;
	}
	count_inline(counters, table[at].slot - 1, insn);
}

bool programs_begin(void)
{
	table = calloc(1u << TABLE_SHIFT, sizeof(*table));
	places = calloc(SLOTS, sizeof(*places));
	taken = calloc(SLOTS, sizeof(*taken));
	counters = counters_new(SLOTS);
	return table && places && taken && counters;
}

static void instrument_module(struct qemu_plugin_insn *insn, uint64_t address)
{
	size_t size = qemu_plugin_insn_size(insn);
	struct place place = { .where = address };

	if (size > LONGEST)
		return;
	place.size = (uint8_t)size;
	read_bytes(insn, place.bytes, size);
	count_at(insn, place);
}

static void instrument_program(struct qemu_plugin_insn *insn, uint64_t address, struct user_page *page)
{
	const unsigned char *host = qemu_plugin_insn_haddr(insn);
	uint32_t offset = (uintptr_t)host % PAGE;

	if (!host || host == (const unsigned char *)-1 || offset != address % PAGE)
		return;
	if (page->start != host - offset) {
		page->start = host - offset;
		page->hash = hash_of(page->start);
	}
	count_at(insn, (struct place){ .where = page->hash, .offset = offset });
}

/* `page` holds the page of the instruction before, NULL at the begin of a block: code may have changed since. */
void programs_instrument(struct qemu_plugin_insn *insn, uint64_t address, struct user_page *page)
{
	if (address < KERNEL_BASE)
		instrument_program(insn, address, page);
	else if (address >= MODULES_BASE && address < MODULES_END)
		instrument_module(insn, address);
}

void programs_take(void)
{
	taken_count = used;
	for (uint32_t i = 0; i < used; i++)
		taken[i] = count_of(counters, i);
}

static void write_bytes(FILE *out, const struct place *place)
{
	for (uint8_t i = 0; i < place->size; i++)
		fprintf(out, "%02x", place->bytes[i]);
}

void programs_write(FILE *out)
{
	for (uint32_t i = 0; i < taken_count; i++) {
		const struct place *place = &table[places[i]];

		if (!taken[i])
			continue;
		fprintf(out, place->size ? "module %llx " : "user %llx ", (unsigned long long)place->where);
		if (place->size)
			write_bytes(out, place);
		else
			fprintf(out, "%u", place->offset);
		fprintf(out, " %llu\n", (unsigned long long)taken[i]);
	}
}
