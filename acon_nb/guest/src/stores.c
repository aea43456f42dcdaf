#define _GNU_SOURCE
#include "stores.h"

#include "acon.h"
#include "groups.h"
#include "load.h"
#include "pages.h"
#include "redis.h"
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define FILE_PAGES 256
#define REDIS_SOCKET "/run/redis"

static uint32_t *versions;

static void note_corrupt(uint64_t number)
{
	if (!shared->corrupt_seen)
		shared->first_corrupt = number;
	shared->corrupt_seen = 1;
	__atomic_add_fetch(&shared->corrupt, 1, __ATOMIC_RELAXED);
}

/* tmpfs: files of 1 MiB, written and read as files; mincore(2) says beforehand whether a page is in memory. */
static int *files;
static unsigned char **maps;

static void tmpfs_open(uint64_t file)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%06llu", parameters.folder, (unsigned long long)file);
	files[file] = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (files[file] < 0)
		give_up(path);
}

static void tmpfs_fill(uint64_t number)
{
	static uint64_t page[PAGE / 8];
	uint64_t start;

	if (number % FILE_PAGES == 0)
		tmpfs_open(number / FILE_PAGES);
	page_make(page, number, 0);
	start = acon_now_ns();
	if (write(files[number / FILE_PAGES], page, PAGE) != PAGE)
		give_up("writing to the tmpfs");
	histogram_note(&shared->fill, acon_now_ns() - start);
}

/* The map of a file, made when it is first used; of two threads that make one, the second keeps the first one's. */
static unsigned char *map_of(uint64_t file)
{
	unsigned char *map = __atomic_load_n(&maps[file], __ATOMIC_ACQUIRE), *none = NULL;

	if (map)
		return map;
	map = mmap(NULL, FILE_PAGES * PAGE, PROT_READ, MAP_SHARED, files[file], 0);
	if (map == MAP_FAILED)
		give_up("mapping a file");
	if (__atomic_compare_exchange_n(&maps[file], &none, map, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return map;
	munmap(map, FILE_PAGES * PAGE);
	return none;
}

static int tmpfs_access(uint64_t number, int writes, uint64_t *ns)
{
	static _Thread_local uint64_t page[PAGE / 8];
	uint64_t file = number / FILE_PAGES, place = number % FILE_PAGES * PAGE, start;
	unsigned char there = 0;

	(void)writes;
	if (mincore(map_of(file) + place, PAGE, &there))
		give_up("mincore");
	start = acon_now_ns();
	if (pread(files[file], page, PAGE, (off_t)place) != PAGE)
		give_up("reading from the tmpfs");
	*ns = acon_now_ns() - start;
	if (!page_good(page, number, 0))
		note_corrupt(number);
	return !(there & 1);
}

/* Anonymous memory: the latency is that of the first word; what is written is known by its version. */
static uint64_t *region;

static long major_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_majflt;
}

static void anon_fill(uint64_t number)
{
	uint64_t *page = region + number * (PAGE / 8), start = acon_now_ns();

	page_make(page, number, 0);
	histogram_note(&shared->fill, acon_now_ns() - start);
}

static int anon_access(uint64_t number, int writes, uint64_t *ns)
{
	volatile uint64_t *first = region + number * (PAGE / 8);
	uint64_t *page = region + number * (PAGE / 8), start;
	long faults = major_faults();

	start = acon_now_ns();
	if (writes)
		*first = *first;
	else
		(void)*first;
	*ns = acon_now_ns() - start;
	faults = major_faults() - faults;
	if (!page_good(page, number, versions[number]))
		note_corrupt(number);
	if (writes)
		page_make(page, number, ++versions[number]);
	return faults > 0;
}

/* redis: its major faults are those of its process. */
static int redis_link = -1, redis_stat = -1;
static long redis_pid;

static long redis_faults(void)
{
	char text[512], *rest;
	ssize_t length = pread(redis_stat, text, sizeof(text) - 1, 0);
	long faults = 0;

	text[length > 0 ? length : 0] = 0;
	rest = strrchr(text, ')'); /* state ppid pgrp session tty tpgid flags minflt cminflt majflt: proc(5) */
	if (rest)
		sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %ld", &faults);
	return faults;
}

long store_redis_pid(void)
{
	return redis_pid;
}

uint64_t store_redis_bytes(void)
{
	char path[64], line[128];
	unsigned long long kib, sum = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%ld/status", redis_pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmRSS: %llu", &kib) == 1 || sscanf(line, "VmSwap: %llu", &kib) == 1)
			sum += kib * 1024;
	if (file)
		fclose(file);
	return sum;
}

static void redis_fill(uint64_t number)
{
	uint64_t start = acon_now_ns();

	if (redis_set(redis_link, number, 0))
		give_up("SET");
	histogram_note(&shared->fill, acon_now_ns() - start);
}

static int redis_access(uint64_t number, int writes, uint64_t *ns)
{
	long faults = redis_faults();
	uint64_t start = acon_now_ns();
	int good;

	if (writes)
		good = redis_set(redis_link, number, ++versions[number]) ? -1 : 1;
	else
		good = redis_get(redis_link, number, versions[number]);
	*ns = acon_now_ns() - start;
	if (good < 0)
		give_up("redis");
	if (!good)
		note_corrupt(number);
	return redis_faults() > faults;
}

/* file: the first pages are those of a file on a disk, read through the page cache; the others anonymous memory. */
static int disk_file = -1;
static unsigned char *disk_map;

static void file_fill(uint64_t number)
{
	static uint64_t page[PAGE / 8];
	uint64_t start;

	if (number >= parameters.file_pages) {
		anon_fill(number);
		return;
	}
	page_make(page, number, 0);
	start = acon_now_ns();
	if (pwrite(disk_file, page, PAGE, (off_t)(number * PAGE)) != PAGE)
		give_up("writing to the disk's file");
	histogram_note(&shared->fill, acon_now_ns() - start);
	/* all of it on the disk before memory is short: its pages in memory can be dropped, and memory's must be swapped */
	if (number + 1 == parameters.file_pages && fsync(disk_file))
		give_up("writing the file to the disk");
}

static int file_access(uint64_t number, int writes, uint64_t *ns)
{
	static _Thread_local uint64_t page[PAGE / 8];
	unsigned char there = 0;
	uint64_t start;

	if (number >= parameters.file_pages)
		return anon_access(number, writes, ns);
	if (mincore(disk_map + number * PAGE, PAGE, &there))
		give_up("mincore");
	start = acon_now_ns();
	if (pread(disk_file, page, PAGE, (off_t)(number * PAGE)) != PAGE)
		give_up("reading from the disk's file");
	*ns = acon_now_ns() - start;
	if (!page_good(page, number, 0))
		note_corrupt(number);
	return !(there & 1);
}

static void file_open(void)
{
	uint64_t bytes = parameters.file_pages * PAGE;

	disk_file = open(parameters.file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (disk_file < 0 || (bytes && ftruncate(disk_file, (off_t)bytes)))
		give_up(parameters.file);
	disk_map = bytes ? mmap(NULL, bytes, PROT_READ, MAP_SHARED, disk_file, 0) : NULL;
	if (disk_map == MAP_FAILED)
		give_up("mapping the disk's file");
}

static const struct store stores[] = {
	{ tmpfs_fill, tmpfs_access },
	{ anon_fill, anon_access },
	{ redis_fill, redis_access },
	{ file_fill, file_access },
};
enum { TMPFS, ANON, REDIS, FILES };

static int kind(void)
{
	static const char *const names[] = { "tmpfs", "anon", "redis", "file" };
	int i;

	for (i = 0; i < 4; i++)
		if (!strcmp(parameters.workload, names[i]))
			return i;
	errno = EINVAL;
	give_up(parameters.workload);
}

static void redis_start(void)
{
	char path[64];

	redis_pid = strtol(parameter("redis_pid", "0"), NULL, 10);
	redis_link = redis_connect(parameter("redis", REDIS_SOCKET));
	snprintf(path, sizeof(path), "/proc/%ld/stat", redis_pid);
	redis_stat = open(path, O_RDONLY | O_CLOEXEC);
	if (redis_link < 0 || redis_stat < 0)
		give_up("redis");
}

const struct store *store_prepare(const char *pages_file)
{
	int which = kind();
	uint64_t count = parameters.pages, file_count = count / FILE_PAGES + 1;
	uint64_t most = which == REDIS ? count * PAGE_DOCUMENTS : count;
	struct rlimit many = { 1 << 20, 1 << 20 };

	if ((errno = pages_load(pages_file, parameters.seed)))
		give_up(pages_file);
	groups_fork();
	threads_reserve();
	files = calloc(file_count, sizeof(*files));
	maps = calloc(file_count, sizeof(*maps));
	versions = calloc(most, sizeof(*versions));
	if (!files || !maps || !versions || (errno = pattern_reserve(&parameters.pattern, most)))
		give_up("memory");
	if (which == REDIS)
		redis_start();
	else if ((errno = pattern_start(&parameters.pattern, count)))
		give_up(parameters.pattern.name);
	lock_up(MCL_CURRENT);
	group_join();
	if (file_count > 1000 && setrlimit(RLIMIT_NOFILE, &many))
		give_up("opening many files");
	if (which == FILES)
		file_open();
	if (which == ANON || which == FILES) {
		region = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (region == MAP_FAILED)
			give_up("mapping memory");
		madvise(region, count * PAGE, MADV_NOHUGEPAGE); /* a kernel without huge pages refuses */
	}
	return &stores[which];
}
