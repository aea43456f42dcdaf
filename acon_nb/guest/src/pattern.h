/*
 * Which thing (page, document) the next access is about, and the random numbers of the workload: all from one seed.
 *
 * "sequential": one after another. "random": each as likely as any other. "zipf": by Zipf's law, where the locality
 * says where in memory the things of each rank lie:
 *   uniform    anywhere: a permutation of all things, drawn with the seed (Fisher and Yates)
 *   clustered  things of neighbouring ranks are neighbours: clusters of 64 in an order that is drawn with the seed
 *   strided    a step apart, modulo their number: step (coprime to the number) and start are drawn with the seed
 */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>

struct pattern {
	const char *name, *locality;
	double exponent;
	uint64_t seed;
	int lane; /* of several workers: each draws other numbers */
};

/* Where one worker or thread is: its random numbers, its place in the sequence. */
struct pattern_state {
	uint64_t state, position;
};

/* Begin a thread's own: `lane` draws its numbers, and its sequence begins at share/shares of all things. */
void pattern_begin(struct pattern_state *begun, int lane, uint64_t share, uint64_t shares);

/* What this thread goes on with, in place of the worker's. */
void pattern_use(struct pattern_state *own);

/* Take the memory for up to `most` things (8 bytes each for "zipf", else none), so that it can be locked; 0, or an errno. */
int pattern_reserve(const struct pattern *pattern, uint64_t most);

/* Draw the order of `count` things, at most as many as were reserved; 0, or an errno. */
int pattern_start(const struct pattern *pattern, uint64_t count);

/* The thing of the next access. */
uint64_t pattern_next(void);

/* The thing of a rank (0: the hottest) of "zipf". */
uint64_t pattern_at(uint64_t rank);

/* The next random number of the workload. */
uint64_t pattern_random(void);

#endif
