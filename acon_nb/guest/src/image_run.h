/* What the parts of image_run share: the description of a run, and the two ways in which memory is looked at. */
#ifndef IMAGE_RUN_H
#define IMAGE_RUN_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define IMAGE_ROOT "/image"
#define PROGRAM_GROUP "/sys/fs/cgroup/program"
#define IMAGE_WORDS 1024

/* From /acon/cell/run: NAME=VALUE, each ended by a NUL. `for_ns`, `limit_ns`: 0 for none. */
struct image_spec {
	char *argv[IMAGE_WORDS], *driver[IMAGE_WORDS], *env[IMAGE_WORDS];
	gid_t groups[64];
	int argc, drivers, envs, group_count;
	const char *cwd, *ready;
	uid_t uid;
	gid_t gid;
	uint64_t for_ns, limit_ns, window_ns, sample_pages;
};

/* A number in a file such as memory.current, or the number after a word in one such as memory.stat; -1 if there is none. */
long long image_number(const char *path, const char *word);

/* The processes of a control group; returns how many of at most `most`. */
int image_processes(const char *group, pid_t *pids, int most);

/* Whether a mapping of smaps or maps is shared memory that belongs to no file of the image. */
int image_shared_memory(const char *path);

/* Get room for a sample of so many pages. */
void pages_start(uint64_t capacity);

/* Take a sample of the group's pages while it is frozen: each of its pages is as likely as any other to be in it. */
void pages_take(const char *group, uint64_t current);

/* Send the last sample: what it was taken of, and the pages that are not filled with one word, in base64. */
void pages_send(FILE *port);

/* Begin a window: no page of the group counts as referenced. */
void touched_begin(const char *group);

/* The bytes of the group's anonymous and shared memory that were referenced since; resident ones in *resident. */
uint64_t touched_bytes(const char *group, uint64_t *resident);

#endif
