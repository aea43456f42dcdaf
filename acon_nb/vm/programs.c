/*
 * Instructions of user space by page of a file, a part of the plugin (plugin.c).
 *
 * Programs share addresses, and the plugin knows no processes. What tells their code apart is what is in it: a page of a
 * file is the same in memory. So an instruction is counted by a hash of the 4 KiB that it lies in, and its offset there:
 *
 *   user HASH OFFSET COUNT    before a snapshot's end; HASH in hexadecimal
 *
 * These instructions are counted by `starts`, too. What finds no room here is counted there alone. HASH: the page's 512
 * words, little-endian, as the digits of a number to the base MULTIPLIER, modulo 2^64 (profile/programs.py computes it
 * of files).
 */
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define PAGE 4096u
#define MULTIPLIER 0x9e3779b97f4a7c15u
#define SLOTS (1u << 17)
#define TABLE_SHIFT 18

struct place {
	uint64_t hash;
	uint32_t offset, slot; /* slot: one more than its number, 0: none */
};

static struct place *table, *places; /* places: of each slot */
static uint32_t used;
static uint64_t *taken;
static uint32_t taken_count;

#if API >= 2
static struct qemu_plugin_scoreboard *board;

static qemu_plugin_u64 slot_of(uint32_t slot)
{
	return (qemu_plugin_u64){ board, slot * sizeof(uint64_t) };
}

static void count_inline(struct qemu_plugin_insn *insn, uint32_t slot)
{
	qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, ADD_U64, slot_of(slot), 1);
}

static uint64_t count_of(uint32_t slot)
{
	return qemu_plugin_u64_sum(slot_of(slot));
}

static bool make_counters(void)
{
	board = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
	return board != NULL;
}
#else
static uint64_t *board;

static void count_inline(struct qemu_plugin_insn *insn, uint32_t slot)
{
	qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &board[slot], 1);
}

static uint64_t count_of(uint32_t slot)
{
	return board[slot];
}

static bool make_counters(void)
{
	board = calloc(SLOTS, sizeof(*board));
	return board != NULL;
}
#endif

static uint64_t hash_of(const unsigned char *page)
{
	uint64_t hash = 0, word;

	for (size_t i = 0; i < PAGE; i += sizeof(word)) {
		memcpy(&word, page + i, sizeof(word));
		hash = hash * MULTIPLIER + word;
	}
	return hash;
}

static struct place *find(uint64_t hash, uint32_t offset)
{
	uint32_t at = ((hash ^ offset) * MULTIPLIER) >> (64 - TABLE_SHIFT);

	while (table[at].slot && (table[at].hash != hash || table[at].offset != offset))
		at = (at + 1) % (1u << TABLE_SHIFT);
	return &table[at];
}

bool programs_begin(void)
{
	table = calloc(1u << TABLE_SHIFT, sizeof(*table));
	places = calloc(SLOTS, sizeof(*places));
	taken = calloc(SLOTS, sizeof(*taken));
	return table && places && taken && make_counters();
}

/* `page` holds the page of the instruction before, NULL at the begin of a block: code may have changed since. */
void programs_instrument(struct qemu_plugin_insn *insn, struct user_page *page)
{
	const unsigned char *host = qemu_plugin_insn_haddr(insn);
	uint32_t offset = (uintptr_t)host % PAGE;
	struct place *place;

	if (!host || host == (const unsigned char *)-1 || offset != qemu_plugin_insn_vaddr(insn) % PAGE)
		return;
	if (page->start != host - offset) {
		page->start = host - offset;
		page->hash = hash_of(page->start);
	}
	place = find(page->hash, offset);
	if (!place->slot) {
		if (used == SLOTS)
			return;
		*place = (struct place){ page->hash, offset, ++used };
		places[place->slot - 1] = *place;
	}
	count_inline(insn, place->slot - 1);
}

void programs_take(void)
{
	taken_count = used;
	for (uint32_t i = 0; i < used; i++)
		taken[i] = count_of(i);
}

void programs_write(FILE *out)
{
	for (uint32_t i = 0; i < taken_count; i++)
		if (taken[i])
			fprintf(out, "user %llx %u %llu\n", (unsigned long long)places[i].hash, places[i].offset,
				(unsigned long long)taken[i]);
}
