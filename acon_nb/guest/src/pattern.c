#define _GNU_SOURCE
#include "pattern.h"

#include "pages.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CLUSTER 64u /* things: more than read-ahead takes at a time (2^page_cluster) */

static uint64_t order_state, things, reserved, seed;
static struct pattern_state of_worker;
static _Thread_local struct pattern_state *own; /* NULL: the worker's */
static uint32_t *cumulated; /* of Zipf's law, by rank, scaled to 2^32 */
static uint32_t *order;	    /* the thing of each rank */
static int sequential, zipf;

static uint64_t draw(uint64_t *from, uint64_t below)
{
	*from = mix(*from);
	return (uint64_t)(((unsigned __int128)*from * below) >> 64);
}

static void shuffle(uint32_t *items, uint64_t count)
{
	uint64_t i;

	for (i = count; i > 1; i--) {
		uint64_t other = draw(&order_state, i);
		uint32_t kept = items[i - 1];

		items[i - 1] = items[other];
		items[other] = kept;
	}
}

static void order_uniform(void)
{
	uint64_t rank;

	for (rank = 0; rank < things; rank++)
		order[rank] = (uint32_t)rank;
	shuffle(order, things);
}

/* The clusters are shuffled at the end of the table, which is then overwritten from its start, never past what is read. */
static void order_clustered(void)
{
	uint64_t clusters = (things + CLUSTER - 1) / CLUSTER, rank = 0, i, thing;
	uint32_t *drawn = order + things - clusters;

	for (i = 0; i < clusters; i++)
		drawn[i] = (uint32_t)i;
	shuffle(drawn, clusters);
	for (i = 0; i < clusters; i++) {
		uint64_t first = (uint64_t)drawn[i] * CLUSTER;

		for (thing = first; thing < first + CLUSTER && thing < things; thing++)
			order[rank++] = (uint32_t)thing;
	}
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static void order_strided(void)
{
	uint64_t step = 1, thing = draw(&order_state, things), rank;

	do
		step = 1 + draw(&order_state, things);
	while (common_divisor(step, things) != 1);
	for (rank = 0; rank < things; rank++) {
		order[rank] = (uint32_t)thing;
		thing = (thing + step) % things;
	}
}

static void *table(uint64_t items)
{
	return items > UINT32_MAX ? NULL : calloc(items, sizeof(uint32_t));
}

int pattern_reserve(const struct pattern *pattern, uint64_t most)
{
	zipf = !strcmp(pattern->name, "zipf");
	sequential = !strcmp(pattern->name, "sequential");
	if (!zipf)
		return 0;
	reserved = most;
	cumulated = table(most);
	order = table(most);
	return cumulated && order ? 0 : ENOMEM;
}

void pattern_begin(struct pattern_state *begun, int lane, uint64_t share, uint64_t shares)
{
	begun->state = mix(seed ^ 0x5eed ^ (uint64_t)lane << 32);
	begun->position = things * share / shares;
}

void pattern_use(struct pattern_state *chosen)
{
	own = chosen;
}

int pattern_start(const struct pattern *pattern, uint64_t count)
{
	double sum = 0, part = 0;
	uint64_t rank;

	if (!count || (zipf && count > reserved))
		return EINVAL;
	things = count;
	seed = pattern->seed;
	pattern_begin(&of_worker, pattern->lane, 0, 1);
	order_state = mix(pattern->seed ^ 0x04de4);
	if (!zipf)
		return 0;
	for (rank = 1; rank <= count; rank++)
		sum += pow((double)rank, -pattern->exponent);
	for (rank = 1; rank <= count; rank++) {
		part += pow((double)rank, -pattern->exponent);
		cumulated[rank - 1] = (uint32_t)(part / sum * 4294967295.0);
	}
	if (!strcmp(pattern->locality, "clustered"))
		order_clustered();
	else if (!strcmp(pattern->locality, "strided"))
		order_strided();
	else if (!strcmp(pattern->locality, "uniform"))
		order_uniform();
	else
		return EINVAL;
	return 0;
}

uint64_t pattern_random(void)
{
	struct pattern_state *at = own ? own : &of_worker;

	at->state = mix(at->state);
	return at->state;
}

uint64_t pattern_at(uint64_t rank)
{
	return order[rank];
}

uint64_t pattern_next(void)
{
	uint64_t low = 0, high = things - 1;
	uint32_t drawn;

	if (sequential)
		return (own ? own : &of_worker)->position++ % things;
	if (!zipf)
		return pattern_random() % things;
	drawn = (uint32_t)(pattern_random() >> 32);
	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (cumulated[middle] < drawn)
			low = middle + 1;
		else
			high = middle;
	}
	return pattern_at(low);
}
