/* A log-linear histogram of times in ns: 32 sub-buckets an octave, so an error of at most 3 %. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define SUB_BITS 5
#define BUCKETS (64 << SUB_BITS)

struct histogram {
	uint64_t bucket[BUCKETS];
	uint64_t count, total_ns, max_ns;
};

/* The number of the bucket of a time. */
unsigned int histogram_bucket(uint64_t ns);

void histogram_note(struct histogram *h, uint64_t ns);

void histogram_add(struct histogram *to, const struct histogram *from);

/* {"count":..., "total_ns":..., "max_ns":..., "histogram_ns":[[start, count], ...]} without the braces */
void histogram_json(FILE *out, const struct histogram *h);

#endif
