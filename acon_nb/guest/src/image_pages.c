/*
 * A sample of the pages that a control group holds in anonymous memory, in memory that its processes share, and in files
 * that it wrote (the guest's files are a tmpfs). Every page is as likely as any other (a reservoir); a page that several
 * processes map counts once, by its frame. Source: Documentation/admin-guide/mm/pagemap.rst, proc(5).
 */
#define _GNU_SOURCE
#include "acon.h"
#include "image_run.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MOST_PROCESSES 1024
#define ENTRIES 8192 /* of pagemap at a time */
#define PRESENT (1ull << 63)
#define SHARED (1ull << 61)
#define FRAME ((1ull << 55) - 1)
#define CHUNK_PAGES 64

/* Where a page is: at an address of a process, or at an offset of a file (whose name is kept). */
struct place {
	pid_t pid;
	char *path;
	uint64_t at;
};

static struct place *places;
static uint8_t *pages, *frames;
static uint64_t capacity, taken, seen, frame_bytes, state = 88172645463325252ull;
static struct {
	uint64_t anon, shared, file, current, t_ns, lost;
} found;
static struct timespec started;

void pages_start(uint64_t wanted)
{
	capacity = wanted;
	places = calloc(capacity, sizeof(*places));
	pages = mmap(NULL, capacity * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!places || pages == MAP_FAILED)
		acon_fail("room for a sample of pages");
	clock_gettime(CLOCK_REALTIME_COARSE, &started);
}

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* One more page: kept while there is room, then in place of another one with the right probability. */
static void offer(pid_t pid, const char *path, uint64_t at)
{
	uint64_t slot = seen < capacity ? seen : draw() % (seen + 1);

	seen++;
	if (slot >= capacity)
		return;
	free(places[slot].path);
	places[slot].path = path ? strdup(path) : NULL;
	places[slot].pid = pid;
	places[slot].at = at;
}

/* Whether a frame was not seen before in this sample. */
static int is_new(uint64_t frame)
{
	uint64_t need = frame / 8 + 1;
	int known;

	if (need > frame_bytes) {
		uint64_t size = need + (1 << 16);
		uint8_t *larger = realloc(frames, size);

		if (!larger)
			return 1;
		memset(larger + frame_bytes, 0, size - frame_bytes);
		frames = larger;
		frame_bytes = size;
	}
	known = frames[frame / 8] >> (frame % 8) & 1;
	frames[frame / 8] |= (uint8_t)(1 << (frame % 8));
	return !known;
}

static void offer_mapping(pid_t pid, int pagemap, uint64_t first, uint64_t last, int shared_memory)
{
	static uint64_t entries[ENTRIES];

	while (first < last) {
		uint64_t want = (last - first) / PAGE < ENTRIES ? (last - first) / PAGE : ENTRIES, i;
		ssize_t got = pread(pagemap, entries, want * 8, (off_t)(first / PAGE * 8));

		if (got <= 0)
			return;
		for (i = 0; i < (uint64_t)got / 8; i++) {
			int shared = (entries[i] & SHARED) != 0;

			if (!(entries[i] & PRESENT) || (shared && !shared_memory) || !is_new(entries[i] & FRAME))
				continue;
			shared ? found.shared++ : found.anon++;
			offer(pid, NULL, first + i * PAGE);
		}
		first += (uint64_t)got / 8 * PAGE;
	}
}

static void offer_process(pid_t pid)
{
	unsigned long long first, last, inode;
	char path[64], line[512], rights[8], name[256];
	FILE *maps;
	int pagemap;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "r");
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	while (maps && pagemap >= 0 && fgets(line, sizeof(line), maps)) {
		name[0] = 0;
		if (sscanf(line, "%llx-%llx %7s %*s %*s %llu %255[^\n]", &first, &last, rights, &inode, name) < 4)
			continue;
		if (rights[0] == '-' || !strncmp(name, "[v", 2)) /* reserved alone; the kernel's own pages */
			continue;
		offer_mapping(pid, pagemap, first, last, image_shared_memory(name));
	}
	if (maps)
		fclose(maps);
	if (pagemap >= 0)
		close(pagemap);
}

static int offer_file(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
	off_t at = 0, end;
	int fd;

	(void)ftw;
	if (kind == FTW_D && (!strcmp(path, IMAGE_ROOT "/proc") || !strcmp(path, IMAGE_ROOT "/sys") ||
			      !strcmp(path, IMAGE_ROOT "/dev")))
		return FTW_SKIP_SUBTREE;
	if (kind != FTW_F || !S_ISREG(stat->st_mode) || !stat->st_blocks || stat->st_ctim.tv_sec < started.tv_sec ||
	    (stat->st_ctim.tv_sec == started.tv_sec && stat->st_ctim.tv_nsec < started.tv_nsec))
		return FTW_CONTINUE;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	while (fd >= 0 && (at = lseek(fd, at, SEEK_DATA)) >= 0 && (end = lseek(fd, at, SEEK_HOLE)) > at)
		for (; at < end; at += PAGE) {
			found.file++;
			offer(0, path, (uint64_t)at);
		}
	if (fd >= 0)
		close(fd);
	return FTW_CONTINUE;
}

static int freeze(const char *group, const char *what)
{
	char path[128];
	int fd, tries;

	snprintf(path, sizeof(path), "%s/cgroup.freeze", group);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, what, 1) != 1)
		return -1;
	close(fd);
	snprintf(path, sizeof(path), "%s/cgroup.events", group);
	for (tries = 0; tries < 500 && image_number(path, "frozen") != *what - '0'; tries++)
		usleep(1000);
	return 0;
}

static int by_place(const void *one, const void *two)
{
	const struct place *a = one, *b = two;

	if (a->pid != b->pid)
		return a->pid < b->pid ? -1 : 1;
	if (a->path && b->path && strcmp(a->path, b->path))
		return strcmp(a->path, b->path);
	return a->at < b->at ? -1 : a->at > b->at;
}

/* Read the chosen pages; one that cannot be read (of a process that was killed) is left out. */
static void read_pages(void)
{
	uint64_t count = seen < capacity ? seen : capacity, i;
	int fd = -1;
	char path[64];

	qsort(places, count, sizeof(*places), by_place);
	taken = 0;
	for (i = 0; i < count; i++) {
		const struct place *place = &places[i], *before = i ? place - 1 : NULL;
		uint8_t *page = pages + taken * PAGE;
		ssize_t got;

		if (!before || before->pid != place->pid || (place->path && strcmp(before->path, place->path))) {
			if (fd >= 0)
				close(fd);
			snprintf(path, sizeof(path), "/proc/%d/mem", (int)place->pid);
			fd = open(place->path ? place->path : path, O_RDONLY | O_CLOEXEC);
		}
		got = fd < 0 ? -1 : pread(fd, page, PAGE, (off_t)place->at);
		if (got <= 0 || (got < PAGE && !place->path)) {
			found.lost++;
			continue;
		}
		memset(page + got, 0, PAGE - (size_t)got); /* behind the end of a file, as in the page cache */
		taken++;
	}
	if (fd >= 0)
		close(fd);
}

void pages_take(const char *group, uint64_t current)
{
	pid_t pids[MOST_PROCESSES];
	int count, i, frozen;

	memset(&found, 0, sizeof(found));
	seen = 0;
	if (frames)
		memset(frames, 0, frame_bytes);
	frozen = !freeze(group, "1");
	found.t_ns = acon_now_ns();
	found.current = current;
	count = image_processes(group, pids, MOST_PROCESSES);
	for (i = 0; i < count; i++)
		offer_process(pids[i]);
	nftw(IMAGE_ROOT, offer_file, 32, FTW_PHYS | FTW_ACTIONRETVAL);
	nftw(IMAGE_ROOT "/dev/shm", offer_file, 32, FTW_PHYS | FTW_ACTIONRETVAL);
	read_pages();
	if (frozen)
		freeze(group, "0");
}

static void put_base64(FILE *port, const uint8_t *data, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t i;

	for (i = 0; i < length; i += 3) {
		size_t left = length - i;
		uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
				(left > 2 ? data[i + 2] : 0);

		fputc(digits[bits >> 18], port);
		fputc(digits[bits >> 12 & 63], port);
		fputc(left > 1 ? digits[bits >> 6 & 63] : '=', port);
		fputc(left > 2 ? digits[bits & 63] : '=', port);
	}
}

/* CRC-32 of zlib: a chunk that was damaged on its way must not become a corpus. */
static uint32_t crc32(const uint8_t *data, size_t length)
{
	uint32_t crc = 0xffffffff;
	int bit;

	for (; length; length--) {
		crc ^= *data++;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* 0: compressed as it is; 1: filled with one word; 2: with zeros. */
static int kind_of(const uint8_t *page)
{
	static const uint64_t zero;

	if (memcmp(page, page + 8, PAGE - 8))
		return 0;
	return memcmp(page, &zero, 8) ? 1 : 2;
}

static void send_chunk(FILE *port, const uint8_t *chunk, uint64_t count)
{
	if (!count)
		return;
	fprintf(port, "{\"event\":\"image-pages\",\"count\":%llu,\"crc32\":%u,\"data\":\"", (unsigned long long)count,
		crc32(chunk, count * PAGE));
	put_base64(port, chunk, count * PAGE);
	fprintf(port, "\"}\n");
	fflush(port);
}

void pages_send(FILE *port)
{
	static uint8_t chunk[CHUNK_PAGES * PAGE];
	uint64_t counts[3] = { 0 }, count = 0, i;

	for (i = 0; i < taken; i++) {
		const uint8_t *page = pages + i * PAGE;
		int kind = kind_of(page);

		counts[kind]++;
		if (kind)
			continue;
		memcpy(chunk + count++ * PAGE, page, PAGE);
		if (count == CHUNK_PAGES) {
			send_chunk(port, chunk, count);
			count = 0;
		}
	}
	send_chunk(port, chunk, count);
	fprintf(port, "{\"event\":\"image-sample\",\"t_ns\":%llu,\"current\":%llu,\"anon\":%llu,\"shared\":%llu,\"file\":%llu",
		(unsigned long long)found.t_ns, (unsigned long long)found.current, (unsigned long long)found.anon,
		(unsigned long long)found.shared, (unsigned long long)found.file);
	fprintf(port, ",\"data\":%llu,\"same\":%llu,\"zero\":%llu,\"lost\":%llu}\n", (unsigned long long)counts[0],
		(unsigned long long)counts[1], (unsigned long long)counts[2], (unsigned long long)found.lost);
	fflush(port);
}
