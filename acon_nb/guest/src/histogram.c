#include "histogram.h"

unsigned int histogram_bucket(uint64_t ns)
{
	unsigned int top;

	if (ns < (1u << SUB_BITS))
		return (unsigned int)ns;
	top = 63 - (unsigned int)__builtin_clzll(ns);
	return ((top - SUB_BITS + 1) << SUB_BITS) + (unsigned int)((ns >> (top - SUB_BITS)) & ((1u << SUB_BITS) - 1));
}

static uint64_t bucket_start(unsigned int bucket)
{
	unsigned int octave = bucket >> SUB_BITS, sub = bucket & ((1u << SUB_BITS) - 1);

	return octave ? (uint64_t)((1u << SUB_BITS) + sub) << (octave - 1) : sub;
}

void histogram_note(struct histogram *h, uint64_t ns)
{
	h->bucket[histogram_bucket(ns)]++;
	h->count++;
	h->total_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

void histogram_add(struct histogram *to, const struct histogram *from)
{
	unsigned int i;

	for (i = 0; i < BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
	to->count += from->count;
	to->total_ns += from->total_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
}

void histogram_json(FILE *out, const struct histogram *h)
{
	const char *comma = "";
	unsigned int i;

	fprintf(out, "\"count\":%llu,\"total_ns\":%llu,\"max_ns\":%llu,\"histogram_ns\":[", (unsigned long long)h->count,
		(unsigned long long)h->total_ns, (unsigned long long)h->max_ns);
	for (i = 0; i < BUCKETS; i++) {
		if (!h->bucket[i])
			continue;
		fprintf(out, "%s[%llu,%llu]", comma, (unsigned long long)bucket_start(i),
			(unsigned long long)h->bucket[i]);
		comma = ",";
	}
	fputc(']', out);
}
