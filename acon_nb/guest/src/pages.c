#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS (PAGE / 8)

static uint64_t *templates, *sums;
static char *kinds;
static uint64_t template_count, template_shift;

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
