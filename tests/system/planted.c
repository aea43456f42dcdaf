/* planted MIB PASSES: a heap of known pages (a quarter drawn, a quarter text, half zeros), written PASSES times. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arg)
{
	uint64_t pages = strtoull(count > 1 ? arg[1] : "200", NULL, 10) << 8;
	uint64_t passes = strtoull(count > 2 ? arg[2] : "1", NULL, 10);
	uint64_t state = 88172645463325252ull, i, j, sum = 0;
	uint8_t *heap = malloc(pages << 12);
	char line[256];
	FILE *zram;

	for (i = 0; heap && i < pages; i++) {
		uint64_t *words = (uint64_t *)(heap + (i << 12));

		for (j = 0; j < 128; j++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			words[j] = state;
			words[128 + j] = 0x6f636120646e6120 + i % 16;
		}
		memset(words + 256, 0, 2048);
	}
	for (j = 0; heap && j < passes; j++)
		for (i = 0; i < pages; i++)
			sum += heap[i << 12]++;
	printf("planted %llu\n", (unsigned long long)sum);
	zram = fopen("/sys/block/zram0/mm_stat", "r"); /* while the heap is still there */
	if (zram && fgets(line, sizeof(line), zram))
		printf("mm_stat %s", line);
	return !heap;
}
