/* Counters of executed instructions, each a number of its own: inline operations, as this version of the API has them. */
#ifndef ACON_COUNTERS_H
#define ACON_COUNTERS_H

#include <stdlib.h>

#include "plugin.h"

#if API >= 2
typedef struct qemu_plugin_scoreboard *counters_t;

static inline qemu_plugin_u64 counter_at(counters_t counters, size_t index)
{
	return (qemu_plugin_u64){ counters, index * sizeof(uint64_t) };
}

static inline counters_t counters_new(size_t count)
{
	return qemu_plugin_scoreboard_new(count * sizeof(uint64_t));
}

static inline void count_inline(counters_t counters, size_t index, struct qemu_plugin_insn *insn)
{
	qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, ADD_U64, counter_at(counters, index), 1);
}

static inline void count_one(counters_t counters, size_t index, unsigned int vcpu)
{
	qemu_plugin_u64_add(counter_at(counters, index), vcpu, 1);
}

static inline uint64_t count_of(counters_t counters, size_t index)
{
	return qemu_plugin_u64_sum(counter_at(counters, index));
}
#else
typedef uint64_t *counters_t;

static inline counters_t counters_new(size_t count)
{
	return calloc(count, sizeof(uint64_t));
}

static inline void count_inline(counters_t counters, size_t index, struct qemu_plugin_insn *insn)
{
	qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &counters[index], 1);
}

static inline void count_one(counters_t counters, size_t index, unsigned int vcpu)
{
	(void)vcpu;
	counters[index]++;
}

static inline uint64_t count_of(counters_t counters, size_t index)
{
	return counters[index];
}
#endif

#endif
