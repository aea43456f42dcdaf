/* Where a workload keeps its pages: files on tmpfs, anonymous memory, redis, or a file on a disk and memory. */
#ifndef STORES_H
#define STORES_H

#include <stdint.h>

#define PAGE_DOCUMENTS 8 /* of redis in a page, at most */

struct store {
	void (*fill)(uint64_t number);
	/* Returns 1 for a fault, 0 for a hit; *ns is the latency. */
	int (*access)(uint64_t number, int writes, uint64_t *ns);
};

/* Prepare the workload's store and all memory of our own, lock that, and only then make room for the data. */
const struct store *store_prepare(const char *pages_file);

/* The process of redis, 0 if the store is another, and the bytes that it has in RAM and swap. */
long store_redis_pid(void);
uint64_t store_redis_bytes(void);

#endif
