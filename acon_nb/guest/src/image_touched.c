/*
 * The working set of a control group: what its processes referenced since their pages' bits were cleared. Each mapping
 * counts by its share (Pss over Rss), so that memory that processes share counts once. Source: proc(5), clear_refs, smaps.
 */
#define _GNU_SOURCE
#include "image_run.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MOST_PROCESSES 1024

void touched_begin(const char *group)
{
	pid_t pids[MOST_PROCESSES];
	int count = image_processes(group, pids, MOST_PROCESSES), i;
	char path[64];

	for (i = 0; i < count; i++) {
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)pids[i]);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (write(fd, "1", 1) < 0)
			perror(path);
		close(fd);
	}
}

/* Whether a line of smaps begins a mapping; `what` is then 1 for memory, 2 for a file of the image. */
static int is_mapping(const char *line, int *what)
{
	unsigned long long first, last, inode;
	char path[256] = "";

	if (sscanf(line, "%llx-%llx %*s %*s %*s %llu %255[^\n]", &first, &last, &inode, path) < 3)
		return 0;
	*what = !inode || image_shared_memory(path) ? 1 : 2;
	return 1;
}

static uint64_t of_process(pid_t pid, uint64_t *resident)
{
	unsigned long long kib, rss = 0, pss = 0, referenced = 0;
	uint64_t sum = 0;
	char path[64], line[512], name[64];
	int what = 2;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (is_mapping(line, &what)) {
			rss = pss = referenced = 0;
			continue;
		}
		if (sscanf(line, "%63[^:]: %llu kB", name, &kib) != 2)
			continue;
		if (!strcmp(name, "Rss"))
			rss = kib;
		else if (!strcmp(name, "Pss"))
			pss = kib;
		else if (!strcmp(name, "Referenced"))
			referenced = kib;
		else if (!strcmp(name, "Anonymous") && rss) { /* comes after the others */
			if (what == 2 && referenced > kib)
				referenced = kib; /* of a private mapping of a file only what was written */
			sum += referenced * 1024 * pss / rss;
			*resident += (what == 2 ? kib : rss) * 1024 * pss / rss;
		}
	}
	if (file)
		fclose(file);
	return sum;
}

uint64_t touched_bytes(const char *group, uint64_t *resident)
{
	pid_t pids[MOST_PROCESSES];
	int count = image_processes(group, pids, MOST_PROCESSES), i;
	uint64_t sum = 0;

	*resident = 0;
	for (i = 0; i < count; i++)
		sum += of_process(pids[i], resident);
	return sum;
}
