/*
 * Marks for the plugin that counts the guest's instructions (vm/plugin.c): a moment with a number, at which it writes
 * down what has been counted so far. Elsewhere a mark is a time stamp and some instructions without effect.
 *
 * The moment is the first instruction: rdtsc with prefixes that mean nothing and that no compiler emits. What it read
 * and the number follow bit by bit, as no-ops that the plugin tells apart.
 */
#ifndef ACON_MARK_H
#define ACON_MARK_H

#include <stdint.h>

enum acon_moment {
	ACON_MARK_INIT = 1,	/* /init begins */
	ACON_MARK_READY = 2,	/* the guest is ready */
	ACON_MARK_BEGIN = 3,	/* what is measured begins */
	ACON_MARK_END = 4,	/* what is measured ends */
};

#define ACON_MARK_NOP(letter) __asm__ volatile(".byte 0x0f, 0x1f, 0x80, 0x4e, 0x4f, 0x43, %c0" : : "i"(letter))

static inline void acon_mark_bits(uint64_t value, int bits)
{
	for (int bit = 0; bit < bits; bit++) {
		if (value >> bit & 1)
			ACON_MARK_NOP('1');
		else
			ACON_MARK_NOP('0');
	}
}

/* Mark this moment. Returns the time stamp counter at it; on QEMU's instruction clock: ns since reset. */
static inline uint64_t acon_mark(enum acon_moment moment)
{
	uint32_t low, high;
	uint64_t tsc;

	__asm__ volatile(".byte 0x3e, 0x26, 0x3e, 0x26; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	tsc = (uint64_t)high << 32 | low;
	acon_mark_bits(tsc, 64);
	acon_mark_bits(moment, 8);
	ACON_MARK_NOP('E');
	return tsc;
}

#endif
