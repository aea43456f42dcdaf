/*
 * tmpfs-swap: fill a tmpfs past the memory, read pages back at random, say what it took.
 *
 *   tmpfs_swap run DIR PAGES READS SEED      in the guest: JSON lines on the results port
 *   tmpfs_swap dump PAGES SEED               on the host: the same pages on stdout, to measure their ratio
 *
 * Each 4 KiB page has a share of random bytes drawn for that page alone (10 % to 70 %, mean 40 %); the rest repeats
 * one 16-byte word. A page is checked by making it again: corruption is a finding, never a silent pass.
 */
#define _GNU_SOURCE
#include "acon.h"
#include "histogram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE 4096
#define FILE_PAGES 256

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static void make_page(uint64_t *page, uint64_t number, uint64_t seed)
{
	uint64_t state = mix(seed * 0x100000001b3u ^ number), word = mix(state);
	unsigned int random = (unsigned int)((100 + state % 601) * (PAGE / 8) / 1000), i;

	page[0] = number;
	for (i = 1; i < random; i++)
		page[i] = state = mix(state);
	for (; i < PAGE / 8; i++)
		page[i] = i & 1 ? word : number;
}

static void put_counters(FILE *port, const char *event)
{
	static const char *const zswap[] = { "pool_total_size", "stored_pages", "written_back_pages",
					     "pool_limit_hit", "reject_compress_poor", "reject_compress_fail",
					     "reject_alloc_fail", "reject_reclaim_fail", NULL };
	char path[128], line[256];
	unsigned long long read_sectors, written_sectors;
	const char *comma = "";
	FILE *file;
	int i;

	fprintf(port, "{\"event\":\"%s\",\"vmstat\":", event);
	acon_json_table(port, "/proc/vmstat");
	fprintf(port, ",\"meminfo_kib\":");
	acon_json_table(port, "/proc/meminfo");
	fprintf(port, ",\"zswap\":{");
	for (i = 0; zswap[i]; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/zswap/%s", zswap[i]);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(line, sizeof(line), file)) {
			fprintf(port, "%s\"%s\":%llu", comma, zswap[i], strtoull(line, NULL, 10));
			comma = ",";
		}
		fclose(file);
	}
	fprintf(port, "},\"zram_mm_stat\":");
	file = fopen("/sys/block/zram0/mm_stat", "r");
	line[0] = 0;
	if (file && fgets(line, sizeof(line), file))
		line[strcspn(line, "\n")] = 0;
	acon_json_string(port, line);
	if (file)
		fclose(file);
	fprintf(port, ",\"disk\":{");
	file = fopen("/sys/block/sda/stat", "r"); /* reads, merged, sectors, ms, writes, merged, sectors, ... */
	if (file && fscanf(file, "%*u %*u %llu %*u %*u %*u %llu", &read_sectors, &written_sectors) == 2)
		fprintf(port, "\"reads\":%llu,\"writes\":%llu", read_sectors / 8, written_sectors / 8);
	if (file)
		fclose(file);
	fprintf(port, "}}\n");
	fflush(port);
}

static int open_file(const char *folder, uint64_t page, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%06llu", folder, (unsigned long long)(page / FILE_PAGES));
	return open(path, flags | O_CLOEXEC, 0600);
}

static void put_error(FILE *port, const char *what, uint64_t page)
{
	fprintf(port, "{\"event\":\"error\",\"what\":");
	acon_json_string(port, what);
	fprintf(port, ",\"page\":%llu,\"errno\":", (unsigned long long)page);
	acon_json_string(port, strerror(errno));
	fprintf(port, "}\n");
	fflush(port);
	exit(1);
}

static void fill(FILE *port, const char *folder, uint64_t pages, uint64_t seed, struct histogram *t)
{
	static uint64_t page[PAGE / 8];
	uint64_t i;
	int fd = -1;

	for (i = 0; i < pages; i++) {
		uint64_t start;

		if (i % FILE_PAGES == 0) {
			if (fd >= 0)
				close(fd);
			fd = open_file(folder, i, O_WRONLY | O_CREAT | O_EXCL);
			if (fd < 0)
				put_error(port, "open for writing", i);
		}
		make_page(page, i, seed);
		start = acon_now_ns();
		if (write(fd, page, PAGE) != PAGE)
			put_error(port, "write", i);
		histogram_note(t, acon_now_ns() - start);
	}
	close(fd);
}

static uint64_t read_back(FILE *port, const char *folder, uint64_t pages, uint64_t reads, uint64_t seed,
			  struct histogram *t)
{
	static uint64_t page[PAGE / 8], expected[PAGE / 8];
	uint64_t i, bad = 0, state = mix(seed ^ 0x5eed);

	for (i = 0; i < reads; i++) {
		uint64_t number, start;
		int fd;

		state = mix(state);
		number = state % pages;
		fd = open_file(folder, number, O_RDONLY);
		if (fd < 0)
			put_error(port, "open for reading", number);
		start = acon_now_ns();
		if (pread(fd, page, PAGE, (off_t)(number % FILE_PAGES) * PAGE) != PAGE)
			put_error(port, "read", number);
		histogram_note(t, acon_now_ns() - start);
		close(fd);
		make_page(expected, number, seed);
		bad += memcmp(page, expected, PAGE) != 0;
	}
	return bad;
}

static void put_phase(FILE *port, const char *name, const struct histogram *t, uint64_t wall_ns, uint64_t bad)
{
	fprintf(port, "{\"event\":\"phase\",\"name\":\"%s\",\"elapsed_ns\":%llu,\"corrupt_pages\":%llu,", name,
		(unsigned long long)wall_ns, (unsigned long long)bad);
	histogram_json(port, t);
	fprintf(port, "}\n");
	fflush(port);
}

static int run(char **arg)
{
	static struct histogram filling, reading;
	uint64_t pages = strtoull(arg[1], NULL, 10), reads = strtoull(arg[2], NULL, 10);
	uint64_t seed = strtoull(arg[3], NULL, 10), start, bad;
	FILE *port = acon_port();

	if (!port)
		return 1;
	put_counters(port, "before");
	start = acon_now_ns();
	fill(port, arg[0], pages, seed, &filling);
	put_phase(port, "fill", &filling, acon_now_ns() - start, 0);
	put_counters(port, "filled");
	start = acon_now_ns();
	bad = read_back(port, arg[0], pages, reads, seed, &reading);
	put_phase(port, "read", &reading, acon_now_ns() - start, bad);
	put_counters(port, "after");
	fprintf(port, "{\"event\":\"done\"}\n");
	return fclose(port) != 0;
}

static int dump(char **arg)
{
	uint64_t pages = strtoull(arg[0], NULL, 10), seed = strtoull(arg[1], NULL, 10), i;
	static uint64_t page[PAGE / 8];

	for (i = 0; i < pages; i++) {
		make_page(page, i, seed);
		if (fwrite(page, PAGE, 1, stdout) != 1)
			return 1;
	}
	return fflush(stdout) != 0;
}

int main(int count, char **arg)
{
	if (count == 6 && !strcmp(arg[1], "run"))
		return run(arg + 2);
	if (count == 4 && !strcmp(arg[1], "dump"))
		return dump(arg + 2);
	fprintf(stderr, "usage: tmpfs_swap run DIR PAGES READS SEED | dump PAGES SEED\n");
	return 2;
}
