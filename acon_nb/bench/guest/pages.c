#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS (PAGE / 8)
#define STRIDE 1000003u /* a prime: neighbours in rank are not neighbours in memory */

static uint64_t *templates, *sums;
static char *kinds;
static uint64_t template_count, template_shift;

static uint64_t state, things, position;
static uint32_t *cumulated; /* of Zipf's law, by rank, scaled to 2^32 */
static int sequential;

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

int pages_load(const char *path, uint64_t seed)
{
	FILE *file = fopen(path, "rb");
	uint64_t i, word;
	long size;

	if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < PAGE + 1)
		return errno ? errno : EINVAL;
	rewind(file);
	template_count = (uint64_t)size / (PAGE + 1);
	template_shift = mix(seed) % template_count;
	templates = aligned_alloc(PAGE, template_count * PAGE);
	kinds = malloc(template_count);
	sums = calloc(template_count, sizeof(*sums));
	if (!templates || !kinds || !sums)
		return ENOMEM;
	if (fread(templates, PAGE, template_count, file) != template_count ||
	    fread(kinds, 1, template_count, file) != template_count)
		return EINVAL;
	fclose(file);
	for (i = 0; i < template_count; i++)
		for (word = 2; word < WORDS; word++)
			sums[i] = mix(sums[i] ^ templates[i * WORDS + word]);
	return unlink(path) ? errno : 0;
}

static uint64_t template_of(uint64_t number)
{
	return (number + template_shift) % template_count;
}

static uint64_t checksum(uint64_t number, uint32_t version)
{
	return mix(sums[template_of(number)] ^ mix(number << 32 | version));
}

void page_make(uint64_t *page, uint64_t number, uint32_t version)
{
	uint64_t which = template_of(number), i;

	switch (kinds[which]) {
	case 'z':
		memset(page, 0, PAGE);
		return;
	case 's':
		for (i = 0; i < WORDS; i++)
			page[i] = checksum(number, version) | 1;
		return;
	}
	memcpy(page, templates + which * WORDS, PAGE);
	page[0] = number << 32 | version;
	page[1] = checksum(number, version);
}

int page_good(const uint64_t *page, uint64_t number, uint32_t version)
{
	uint64_t which = template_of(number), i, same = 0;

	switch (kinds[which]) {
	case 's':
		same = checksum(number, version) | 1;
		/* fall through */
	case 'z':
		for (i = 0; i < WORDS; i++)
			if (page[i] != same)
				return 0;
		return 1;
	}
	return page[0] == (number << 32 | version) && page[1] == checksum(number, version) &&
	       !memcmp(page + 2, templates + which * WORDS + 2, PAGE - 16);
}

int pattern_start(const char *pattern, uint64_t count, double exponent, uint64_t seed)
{
	double sum = 0, part = 0;
	uint64_t rank;

	state = mix(seed ^ 0x5eed);
	things = count;
	sequential = !strcmp(pattern, "sequential");
	if (strcmp(pattern, "zipf"))
		return 0;
	cumulated = malloc(count * sizeof(*cumulated));
	if (!cumulated)
		return ENOMEM;
	for (rank = 1; rank <= count; rank++)
		sum += pow((double)rank, -exponent);
	for (rank = 1; rank <= count; rank++) {
		part += pow((double)rank, -exponent);
		cumulated[rank - 1] = (uint32_t)(part / sum * 4294967295.0);
	}
	return 0;
}

uint64_t pattern_random(void)
{
	state = mix(state);
	return state;
}

uint64_t pattern_next(void)
{
	uint64_t low = 0, high = things - 1;
	uint32_t draw;

	if (sequential)
		return position++ % things;
	if (!cumulated)
		return pattern_random() % things;
	draw = (uint32_t)(pattern_random() >> 32);
	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (cumulated[middle] < draw)
			low = middle + 1;
		else
			high = middle;
	}
	return (low * STRIDE + things / 3) % things;
}
