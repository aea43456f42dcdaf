#define _GNU_SOURCE
#include "worker.h"

#include "acon.h"
#include "groups.h"
#include "load.h"
#include "mark.h"
#include "pages.h"
#include "program.h"
#include "stores.h"
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define CHECK_EVERY 512 /* documents between looks at redis' size */

int to_parent[2], to_worker[2];

/* Let the parent count ('c' all, 's' a sample). */
static void ask(char what)
{
	if (write(to_parent[1], &what, 1) != 1 || read(to_worker[0], &what, 1) != 1)
		_exit(4);
}

/* Ask, and wait for the workers of other groups at the ends of phases; the time that takes is not the workload's. */
static void pause_for(char what)
{
	shared->pause_start_ns = acon_now_ns();
	if (what == 'c')
		groups_meet();
	if (group_talks())
		ask(what);
	if (what == 'c')
		groups_meet();
	shared->paused_ns += acon_now_ns() - shared->pause_start_ns;
	shared->pause_start_ns = 0;
}

static void begin(enum phase phase, uint64_t planned)
{
	shared->phase = phase;
	shared->done = 0;
	shared->planned = planned;
	shared->phase_paused_ns = shared->paused_ns;
	shared->phase_start_ns = acon_now_ns();
}

uint64_t phase_ns(void)
{
	return acon_now_ns() - shared->phase_start_ns - (shared->paused_ns - shared->phase_paused_ns);
}

/* One more done; a sample when its time has come. */
static void step(uint64_t per_sample)
{
	shared->done++;
	if (per_sample && shared->done % per_sample == 0 && shared->done < shared->planned)
		pause_for('s');
}

/* "PATH=VALUE;PATH=VALUE": what is written between fill and accesses, or every so often, such as zram's write-back. */
static void do_steps(void)
{
	char *text = strdup(parameters.steps), *rest = text, *item;

	while (text && (item = strsep(&rest, ";"))) {
		char *value = strchr(item, '=');
		int fd;

		if (!value)
			continue;
		*value++ = 0;
		fd = open(item, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, value, strlen(value)) < 0)
			give_up(item);
		close(fd);
	}
	free(text);
	shared->rounds++;
}

static void settle(void)
{
	begin(SETTLE, 0);
	if (*parameters.steps && !parameters.steps_every_ns)
		do_steps();
}

void start_rounds(void)
{
	struct timespec pause = { (time_t)(parameters.steps_every_ns / 1000000000),
				  (long)(parameters.steps_every_ns % 1000000000) };

	if (!*parameters.steps || !parameters.steps_every_ns || fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	lock_up(MCL_CURRENT);
	for (;;) {
		nanosleep(&pause, NULL);
		do_steps();
	}
}

static void fill(const struct store *store)
{
	uint64_t count = parameters.pages, sampled = 0, i;
	int redis = store_redis_pid() != 0;

	begin(FILL, count);
	for (i = 0; redis ? i < count * PAGE_DOCUMENTS : i < count; i++) {
		store->fill(i);
		if (!redis) {
			step(count / (parameters.samples / 2 + 1));
		} else if (i % CHECK_EVERY == 0) {
			uint64_t bytes = store_redis_bytes();

			shared->done = bytes / PAGE;
			if (bytes >= sampled + count * PAGE / (parameters.samples / 2 + 1)) {
				sampled = bytes;
				pause_for('s');
			}
			if (i && bytes >= count * PAGE)
				break;
		}
	}
	shared->things = i;
	shared->fill_ns = phase_ns();
	if (redis)
		shared->held = store_redis_bytes();
}

/* Whether so many accesses kept the rate of those before them, within the tolerance. */
static int is_steady(uint64_t before, uint64_t before_ns, uint64_t after, uint64_t after_ns)
{
	double change = (double)after * (double)before_ns / ((double)after_ns * (double)before) - 1;

	return change * 1e6 <= (double)parameters.steady_per_million && -change * 1e6 <= (double)parameters.steady_per_million;
}

/* A window of accesses; returns whether its second half kept the rate of the first. */
static int use(const struct store *store, enum phase phase, uint64_t accesses)
{
	uint64_t i, half = accesses / 2, per_sample = accesses / (parameters.samples / 4 + 1);

	memset(&shared->hit, 0, sizeof(shared->hit));
	memset(&shared->fault, 0, sizeof(shared->fault));
	shared->half_ns = 0;
	begin(phase, accesses);
	if (phase == ACCESS)
		acon_mark(ACON_MARK_BEGIN);
	if (threads_count() > 1)
		threads_use(store, phase, accesses, per_sample, ask);
	for (i = 0; threads_count() == 1 && i < accesses; i++) {
		uint64_t number = pattern_next(), ns = 0;
		int writes = pattern_random() % 1000000 < parameters.write_per_million, fault;

		if (i == half)
			shared->half_ns = phase_ns();
		fault = store->access(number, writes, &ns);
		if (phase == ACCESS)
			histogram_note(fault ? &shared->fault : &shared->hit, ns);
		step(per_sample);
	}
	shared->access_ns = phase_ns();
	if (phase == ACCESS)
		acon_mark(ACON_MARK_END);
	threads_merge(group_number(), shared);
	return half && is_steady(half, shared->half_ns, accesses - half, shared->access_ns - shared->half_ns);
}

/*
 * Warm up, then measure; with until_steady go on until two windows in a row are steady, or no further window is within
 * that many accesses: the last window is the one that counts, and those before it have warmed it up.
 */
static void use_all(const struct store *store)
{
	uint64_t window = parameters.accesses - parameters.accesses / 2;
	int before, now = use(store, WARM, parameters.accesses / 2);

	shared->warmed = parameters.accesses / 2;
	pause_for('c');
	for (;;) {
		before = now;
		now = use(store, ACCESS, window);
		if ((before && now) || shared->warmed + 2 * window > parameters.until_steady)
			break;
		shared->warmed += window;
		shared->phase = WARM;
		pause_for('c');
	}
	pause_for('c'); /* while the memory is still held */
}

/* Any program in place of our own work. */
static void run_program(void)
{
	program_prepare();
	pause_for('c');
	begin(ACCESS, 1);
	acon_mark(ACON_MARK_BEGIN);
	program_run();
	acon_mark(ACON_MARK_END);
	program_leave();
	shared->done = 1;
	pause_for('c');
	shared->phase = END;
	_exit(0);
}

void work(const char *pages_file)
{
	const struct store *store;
	char path[64];

	put_text("/proc/self/oom_score_adj", "1000");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (program_workload()) {
		group_join();
		shared->started_ns = acon_now_ns();
		run_program();
	}
	store = store_prepare(pages_file);
	if (store_redis_pid()) {
		snprintf(path, sizeof(path), "/proc/%ld/oom_score_adj", store_redis_pid());
		put_text(path, "1000");
		put_text("/proc/self/oom_score_adj", "0");
	}
	shared->started_ns = acon_now_ns();
	pause_for('c');
	fill(store);
	settle();
	pause_for('c');
	if (store_redis_pid() && (errno = pattern_start(&parameters.pattern, shared->things)))
		give_up(parameters.pattern.name);
	use_all(store);
	shared->phase = END;
	_exit(0);
}
