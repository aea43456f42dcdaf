#define _GNU_SOURCE
#include "image_hold.h"

#include "acon.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1u << 20)
#define MOST_MAPS "/proc/sys/vm/max_map_count"
#define MORE_MAPS "2000000" /* a mapping for each file */
#define OWN_PAGES "/acon/pages" /* swap_load removes it when it has read it */

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file))
		acon_fail(path);
}

/* Fork a process that does `work`, then stays; returns when it has done it. What it locks is locked as long as the guest runs. */
static void in_background(const char *name, void (*work)(uint64_t wanted), uint64_t wanted)
{
	int ends[2];
	char byte;

	if (pipe2(ends, O_CLOEXEC))
		acon_fail("a pipe");
	signal(SIGHUP, SIG_IGN);
	if (!fork()) {
		close(ends[0]);
		setsid();
		prctl(PR_SET_NAME, name);
		write_text("/proc/self/oom_score_adj", "-1000");
		work(wanted);
		if (write(ends[1], "", 1) != 1)
			_exit(1);
		close(ends[1]);
		for (;;)
			pause();
	}
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		exit(1);
	close(ends[0]);
}

static void lock_all_but(uint64_t wanted)
{
	int tries;

	for (tries = 0; tries < 64; tries++) {
		long long left = image_number("/proc/meminfo", "MemAvailable") * 1024 - (long long)wanted;
		size_t size = left > 0 ? (size_t)left & ~(size_t)4095 : 0;

		if (size < 64 << 10)
			break;
		if (size > 64 * MIB)
			size = 64 * MIB;
		if (mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0) ==
		    MAP_FAILED)
			break;
	}
}

void hold_until(uint64_t wanted)
{
	long long available = image_number("/proc/meminfo", "MemAvailable") * 1024;

	if (available < (long long)wanted) {
		fprintf(stderr, "acon: %lld bytes are available, not %llu\n", available, (unsigned long long)wanted);
		exit(1);
	}
	in_background("acon-hold", lock_all_but, wanted);
}

static int lock_file(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	void *map = MAP_FAILED;
	int fd;

	(void)ftw;
	if (kind != FTW_F || !S_ISREG(stat->st_mode) || !stat->st_size || !strcmp(path, OWN_PAGES))
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0)
		map = mmap(NULL, (size_t)stat->st_size, PROT_READ, MAP_SHARED | MAP_POPULATE | MAP_LOCKED, fd, 0);
	if (map == MAP_FAILED)
		acon_fail(path);
	close(fd);
	return 0;
}

static void lock_files(uint64_t wanted)
{
	char most[32] = "";
	FILE *file = fopen(MOST_MAPS, "r");

	(void)wanted;
	if (!file || !fgets(most, sizeof(most), file))
		acon_fail(MOST_MAPS);
	fclose(file);
	write_text(MOST_MAPS, MORE_MAPS);
	if (nftw("/", lock_file, 32, FTW_PHYS | FTW_MOUNT))
		acon_fail("the guest's files");
	write_text(MOST_MAPS, most);
}

void keep_files(void)
{
	in_background("acon-keep", lock_files, 0);
}
