/*
 * codec FILE: what lzo, lz4 and zstd (level 3) make of the file's 4 KiB pages. A line a page: the bytes that each makes
 * of it (4096: the page stays whole).
 */
#include "codecs.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arg)
{
	static unsigned char packed[CODEC_ROOM];
	unsigned char *data;
	size_t pages, page, i;

	if (count != 2) {
		fprintf(stderr, "usage: codec FILE\n");
		return 2;
	}
	if (!codecs_ready())
		return 1;
	data = codecs_pages(arg[1], &pages);
	for (page = 0; page < pages; page++)
		for (i = 0; i < CODECS; i++) {
			size_t size = codecs[i].pack(data + page * CODEC_PAGE, packed);

			printf("%zu%c", size < CODEC_PAGE ? size : CODEC_PAGE, i + 1 < CODECS ? ' ' : '\n');
		}
	free(data);
	return fflush(stdout) != 0;
}
