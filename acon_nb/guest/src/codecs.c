#include "codecs.h"

#include <lz4.h>
#include <lzo/lzo1x.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#define ZSTD_LEVEL 3

static ZSTD_CCtx *zstd_out;
static ZSTD_DCtx *zstd_in;
static unsigned char lzo_memory[LZO1X_1_MEM_COMPRESS];

static size_t lzo_pack(const void *page, void *out)
{
	lzo_uint size = CODEC_ROOM;

	return lzo1x_1_compress(page, CODEC_PAGE, out, &size, lzo_memory) == LZO_E_OK ? size : CODEC_PAGE;
}

static int lzo_unpack(const void *packed, size_t size, void *page)
{
	lzo_uint length = CODEC_PAGE;

	return lzo1x_decompress_safe(packed, size, page, &length, NULL) == LZO_E_OK && length == CODEC_PAGE;
}

static size_t lz4_pack(const void *page, void *out)
{
	return (size_t)LZ4_compress_default(page, out, CODEC_PAGE, CODEC_ROOM);
}

static int lz4_unpack(const void *packed, size_t size, void *page)
{
	return LZ4_decompress_safe(packed, page, (int)size, CODEC_PAGE) == CODEC_PAGE;
}

static size_t zstd_pack(const void *page, void *out)
{
	size_t size = ZSTD_compressCCtx(zstd_out, out, CODEC_ROOM, page, CODEC_PAGE, ZSTD_LEVEL);

	return ZSTD_isError(size) ? CODEC_PAGE : size;
}

static int zstd_unpack(const void *packed, size_t size, void *page)
{
	return ZSTD_decompressDCtx(zstd_in, page, CODEC_PAGE, packed, size) == CODEC_PAGE;
}

const struct codec codecs[CODECS] = {
	{ "lzo", lzo_pack, lzo_unpack },
	{ "lz4", lz4_pack, lz4_unpack },
	{ "zstd", zstd_pack, zstd_unpack },
};

int codecs_ready(void)
{
	zstd_out = ZSTD_createCCtx();
	zstd_in = ZSTD_createDCtx();
	return zstd_out && zstd_in && lzo_init() == LZO_E_OK;
}

unsigned char *codecs_pages(const char *path, size_t *pages)
{
	FILE *file = fopen(path, "rb");
	unsigned char *data;
	long size;

	if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < CODEC_PAGE) {
		fprintf(stderr, "%s holds no page\n", path);
		exit(1);
	}
	rewind(file);
	*pages = (size_t)size / CODEC_PAGE;
	data = malloc(*pages * CODEC_PAGE);
	if (!data || fread(data, CODEC_PAGE, *pages, file) != *pages) {
		fprintf(stderr, "%s cannot be read\n", path);
		exit(1);
	}
	fclose(file);
	return data;
}
