/*
 * Workers in control groups of their own: /sys/fs/cgroup/acon/0, 1, ..., which the cell's script makes, with limits.
 *
 * The first worker starts the others once what all of them share (the pages that are copied) is in memory; each fills and
 * uses a part of its own. They meet at the ends of every phase, where the parent counts. A worker joins its group only
 * when its tables are locked, so that what is charged to the group is the workload's.
 */
#ifndef GROUPS_H
#define GROUPS_H

#include "load.h"

#include <stdint.h>
#include <stdio.h>

#define MOST_GROUPS 64
#define GROUP_FOLDER "/sys/fs/cgroup/acon"

/* Proactive reclaim, in the manner of Senpai (docs/swap.md has the rule). */
struct reclaim {
	uint64_t interval_ns, target_per_million, step_per_million, floor_bytes;
};

/* What the controller did, in shared memory. */
struct reclaimed {
	uint64_t rounds, backoffs, asked_bytes, refused;
};
extern struct reclaimed *reclaimed;

/* Take the parameters, and the shared memory of `groups` workers; `shared` is then that of the first. */
void groups_take_parameters(void);

/* What a worker shares with its parent. */
struct shared *group_shared(int group);

/* Start the other workers, which return from this with a group of their own. */
void groups_fork(void);

/* Join the own group (nothing where the cell has none). */
void group_join(void);

/* The own group's number, and whether the own worker is the one that talks to the parent. */
int group_number(void);
int group_talks(void);

/* Wait until all workers are here; ends the worker that talks if another one is dead. */
void groups_meet(void);

/* How much all workers did: what tells whether they make progress. */
uint64_t groups_done(void);

/* Merge what the workers measured into `shared`, for the result. */
void groups_merge(void);

/* ,"cgroups":[{...},...], nothing where the cell has none */
void groups_counters(FILE *out);

/* Start the controller as a process that ends with its parent; nothing without an interval. */
void start_reclaim(void);

#endif
