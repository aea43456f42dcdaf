/* The process that fills memory and uses it; its parent counts while it waits. */
#ifndef WORKER_H
#define WORKER_H

#include <stdint.h>

/* Pipes: the worker asks for counters ('c' all, 's' a sample), the parent answers when it has them. */
extern int to_parent[2], to_worker[2];

/* Do the cell's work, and end. */
_Noreturn void work(const char *pages_file);

/* Start a process that does the cell's steps every so often, as a timer of the system would; it ends with its parent. */
void start_rounds(void);

/* How long the phase lasts so far, without the pauses. */
uint64_t phase_ns(void);

#endif
