/*
 * codec: what lzo, lz4 and zstd (level 3) make of 4 KiB pages, and how long they take.
 *
 *   codec sizes FILE              a line a page: the bytes that lzo, lz4 and zstd make of it (4096: it stays whole)
 *   codec time FILE ROUNDS        JSON: ns a page, compressed and back; of each few pages the fastest of ROUNDS
 *   codec guest FILE ROUNDS       the same on the results port
 *
 * The same static program runs on the host and in the guest: the quotient is the dilation of the guest's time.
 */
#define _GNU_SOURCE
#include "acon.h"

#include <lz4.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define PAGE 4096
#define ROOM (PAGE * 2)
#define ZSTD_LEVEL 3
#define CHUNK 8 /* pages timed at once: short, so that a busy host lets some rounds through undisturbed */

static ZSTD_CCtx *zstd_out;
static ZSTD_DCtx *zstd_in;
static unsigned char lzo_memory[LZO1X_1_MEM_COMPRESS];

static size_t lzo_pack(const void *page, void *out)
{
	lzo_uint size = ROOM;

	return lzo1x_1_compress(page, PAGE, out, &size, lzo_memory) == LZO_E_OK ? size : PAGE;
}

static int lzo_unpack(const void *packed, size_t size, void *page)
{
	lzo_uint length = PAGE;

	return lzo1x_decompress_safe(packed, size, page, &length, NULL) == LZO_E_OK && length == PAGE;
}

static size_t lz4_pack(const void *page, void *out)
{
	return (size_t)LZ4_compress_default(page, out, PAGE, ROOM);
}

static int lz4_unpack(const void *packed, size_t size, void *page)
{
	return LZ4_decompress_safe(packed, page, (int)size, PAGE) == PAGE;
}

static size_t zstd_pack(const void *page, void *out)
{
	size_t size = ZSTD_compressCCtx(zstd_out, out, ROOM, page, PAGE, ZSTD_LEVEL);

	return ZSTD_isError(size) ? PAGE : size;
}

static int zstd_unpack(const void *packed, size_t size, void *page)
{
	return ZSTD_decompressDCtx(zstd_in, page, PAGE, packed, size) == PAGE;
}

static const struct codec {
	const char *name;
	size_t (*pack)(const void *page, void *out);
	int (*unpack)(const void *packed, size_t size, void *page);
} codecs[] = {
	{ "lzo", lzo_pack, lzo_unpack },
	{ "lz4", lz4_pack, lz4_unpack },
	{ "zstd", zstd_pack, zstd_unpack },
};

#define CODECS (sizeof(codecs) / sizeof(*codecs))

static unsigned char *load(const char *path, size_t *pages)
{
	FILE *file = fopen(path, "rb");
	unsigned char *data;
	long size;

	if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < PAGE) {
		fprintf(stderr, "codec: %s holds no page\n", path);
		exit(1);
	}
	rewind(file);
	*pages = (size_t)size / PAGE;
	data = malloc(*pages * PAGE);
	if (!data || fread(data, PAGE, *pages, file) != *pages) {
		fprintf(stderr, "codec: %s cannot be read\n", path);
		exit(1);
	}
	fclose(file);
	return data;
}

static int sizes(const unsigned char *data, size_t pages)
{
	static unsigned char packed[ROOM];
	size_t page, i;

	for (page = 0; page < pages; page++)
		for (i = 0; i < CODECS; i++) {
			size_t size = codecs[i].pack(data + page * PAGE, packed);

			printf("%zu%c", size < PAGE ? size : PAGE, i + 1 < CODECS ? ' ' : '\n');
		}
	return fflush(stdout) != 0;
}

static int timed(FILE *out, const unsigned char *data, size_t pages, int rounds)
{
	static unsigned char packed[ROOM], back[PAGE];
	size_t i;

	fprintf(out, "{\"event\":\"codec\"");
	for (i = 0; i < CODECS; i++) {
		uint64_t sum = 0;
		size_t page, first;
		int round;

		for (first = 0; first < pages; first += CHUNK) {
			uint64_t best = UINT64_MAX;

			for (round = 0; round < rounds; round++) {
				uint64_t start = acon_now_ns();

				for (page = first; page < pages && page < first + CHUNK; page++) {
					size_t size = codecs[i].pack(data + page * PAGE, packed);

					if (!codecs[i].unpack(packed, size, back) ||
					    memcmp(back, data + page * PAGE, PAGE)) {
						fprintf(stderr, "codec: %s does not give page %zu back\n",
							codecs[i].name, page);
						return 1;
					}
				}
				start = acon_now_ns() - start;
				if (start < best)
					best = start;
			}
			sum += best;
		}
		fprintf(out, ",\"%s_ns\":%.1f", codecs[i].name, (double)sum / (double)pages);
	}
	fprintf(out, ",\"pages\":%zu,\"rounds\":%d}\n", pages, rounds);
	return fflush(out) != 0;
}

int main(int count, char **arg)
{
	unsigned char *data;
	size_t pages;
	FILE *out = stdout;
	int rounds = count == 4 ? atoi(arg[3]) : 1;

	if (count < 3 || count > 4 || rounds < 1) {
		fprintf(stderr, "usage: codec sizes FILE | time FILE ROUNDS | guest FILE ROUNDS\n");
		return 2;
	}
	zstd_out = ZSTD_createCCtx();
	zstd_in = ZSTD_createDCtx();
	if (!zstd_out || !zstd_in || lzo_init() != LZO_E_OK)
		return 1;
	data = load(arg[2], &pages);
	if (!strcmp(arg[1], "sizes"))
		return sizes(data, pages);
	if (!strcmp(arg[1], "guest"))
		out = acon_port();
	return !out || timed(out, data, pages, rounds);
}
