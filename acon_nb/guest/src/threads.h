/* Accesses by several threads of a worker, each with histograms and random numbers of its own. */
#ifndef THREADS_H
#define THREADS_H

#include "load.h"
#include "stores.h"

#include <stdint.h>

#define MOST_THREADS 256

/* Take the parameters; the parent's, so that what a killed worker measured is left. */
void threads_take_parameters(int groups);

int threads_count(void);

/* Take the threads' stacks and locks, so that they can be locked in memory. */
void threads_reserve(void);

/* Do so many accesses, shared by the threads; `ask` lets the parent take a sample meanwhile. */
void threads_use(const struct store *store, enum phase phase, uint64_t accesses, uint64_t per_sample, void (*ask)(char));

/* Add what the threads of a group measured to what its worker shares. */
void threads_merge(int group, struct shared *to);

#endif
