/* lzo, lz4 and zstd (level 3), from Debian's static libraries, on 4 KiB pages. */
#ifndef CODECS_H
#define CODECS_H

#include <stddef.h>

#define CODEC_PAGE 4096
#define CODEC_ROOM (CODEC_PAGE * 2)
#define CODECS 3

struct codec {
	const char *name;
	/* Returns the bytes that were written to `out`, which has CODEC_ROOM; CODEC_PAGE or more: it does not compress. */
	size_t (*pack)(const void *page, void *out);
	/* Whether a whole page came back. */
	int (*unpack)(const void *packed, size_t size, void *page);
};

extern const struct codec codecs[CODECS];

/* Make the libraries ready; 0 if there is no memory for them. */
int codecs_ready(void);

/* The pages of a file and their number; ends the program if there is none. */
unsigned char *codecs_pages(const char *path, size_t *pages);

#endif
