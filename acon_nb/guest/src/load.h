/* What the parts of swap-load share: the cell's parameters, what worker and parent tell each other, giving up. */
#ifndef LOAD_H
#define LOAD_H

#include "histogram.h"
#include "pattern.h"

#include <stdint.h>

enum phase { FILL, SETTLE, WARM, ACCESS, END };

/* From the environment: the variables cell_NAME. */
struct parameters {
	const char *workload, *folder, *file, *steps, *disk;
	uint64_t pages, file_pages, accesses, until_steady, steady_per_million, write_per_million, samples, seed, stall_ns,
		steps_every_ns;
	struct pattern pattern;
};
extern struct parameters parameters;

/* What worker and parent share. */
struct shared {
	struct histogram fill, hit, fault;
	uint64_t started_ns, fill_ns, access_ns, half_ns, paused_ns, pause_start_ns, phase_start_ns, phase_paused_ns;
	uint64_t done, planned, things, held, warmed, rounds, corrupt, first_corrupt;
	uint64_t program_started_ns;
	int program_status, program_pid, program_errno, program_left;
	char corrupt_seen, program_ran, program_stopped, program_there, program_what[16], killed_other, failed[256];
	enum phase phase;
};
extern struct shared *shared;

/* Whether the work is a program of the user's. */
int program_workload(void);

/* The variable cell_NAME. */
const char *parameter(const char *name, const char *otherwise);

/* Root of a guest may lock memory; a user who tries the program on a host may not, and need not. */
void lock_up(int what);

void put_text(const char *path, const char *text);

/* End the worker: what it was about, and errno. */
_Noreturn void give_up(const char *what);

#endif
