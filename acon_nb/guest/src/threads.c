#define _GNU_SOURCE
#include "threads.h"

#include "acon.h"
#include "groups.h"
#include "pattern.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK (256u << 10)
#define LOCKS 1024 /* a page has that of its number modulo this: one thread at a time writes a page and checks it */
#define LOOK_US 5000

static struct lane {
	struct histogram hit, fault;
} *lanes;

static struct job {
	const struct store *store;
	struct pattern_state pattern;
	enum phase phase;
	uint64_t accesses, half;
	int lane, running;
} *jobs;

static pthread_mutex_t *locks;
static char *stacks;
static int threads;

void threads_take_parameters(int groups)
{
	size_t bytes;

	threads = atoi(parameter("threads", "1"));
	if (threads < 1 || threads > MOST_THREADS)
		acon_fail("too many threads");
	bytes = sizeof(*lanes) * (size_t)groups * (size_t)threads;
	lanes = threads == 1 ? NULL : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (lanes == MAP_FAILED)
		acon_fail("the threads' histograms");
}

int threads_count(void)
{
	return threads;
}

void threads_reserve(void)
{
	int i;

	if (threads == 1)
		return;
	stacks = aligned_alloc(4096, (size_t)threads * STACK);
	locks = calloc(LOCKS, sizeof(*locks));
	jobs = calloc((size_t)threads, sizeof(*jobs));
	if (!stacks || !locks || !jobs)
		give_up("the threads' memory");
	for (i = 0; i < LOCKS; i++)
		pthread_mutex_init(&locks[i], NULL);
}

static void *run(void *argument)
{
	struct job *job = argument;
	struct lane *lane = &lanes[group_number() * threads + job->lane];
	uint64_t i, ns = 0;

	pattern_use(&job->pattern);
	for (i = 0; i < job->accesses; i++) {
		uint64_t number = pattern_next(), done;
		int writes = pattern_random() % 1000000 < parameters.write_per_million, fault;
		pthread_mutex_t *lock = parameters.write_per_million ? &locks[number % LOCKS] : NULL;

		if (lock)
			pthread_mutex_lock(lock);
		fault = job->store->access(number, writes, &ns);
		if (lock)
			pthread_mutex_unlock(lock);
		if (job->phase == ACCESS)
			histogram_note(fault ? &lane->fault : &lane->hit, ns);
		done = __atomic_add_fetch(&shared->done, 1, __ATOMIC_RELAXED);
		if (done == job->half)
			shared->half_ns = acon_now_ns() - shared->phase_start_ns;
	}
	__atomic_store_n(&job->running, 0, __ATOMIC_RELEASE);
	return NULL;
}

static void start(pthread_t *thread, int lane)
{
	pthread_attr_t attributes;

	jobs[lane].lane = lane;
	jobs[lane].running = 1;
	errno = pthread_attr_init(&attributes);
	if (!errno)
		errno = pthread_attr_setstack(&attributes, stacks + (size_t)lane * STACK, STACK);
	if (!errno)
		errno = pthread_create(thread, &attributes, run, &jobs[lane]);
	if (errno)
		give_up("starting a thread");
	pthread_attr_destroy(&attributes);
}

static int any_runs(void)
{
	int lane, sum = 0;

	for (lane = 0; lane < threads; lane++)
		sum += __atomic_load_n(&jobs[lane].running, __ATOMIC_ACQUIRE);
	return sum;
}

void threads_use(const struct store *store, enum phase phase, uint64_t accesses, uint64_t per_sample, void (*ask)(char))
{
	pthread_t thread[MOST_THREADS];
	uint64_t next = per_sample;
	int lane;

	for (lane = 0; lane < threads; lane++) {
		struct job *job = &jobs[lane];

		if (!job->store)
			pattern_begin(&job->pattern, group_number() * threads + lane, (uint64_t)lane, (uint64_t)threads);
		job->store = store;
		job->phase = phase;
		job->half = accesses / 2;
		job->accesses = accesses / (uint64_t)threads + ((uint64_t)lane < accesses % (uint64_t)threads);
	}
	for (lane = 0; lane < threads; lane++)
		start(&thread[lane], lane);
	while (any_runs()) {
		usleep(LOOK_US);
		if (per_sample && shared->done >= next && shared->done < accesses) {
			next = shared->done + per_sample;
			ask('s');
		}
	}
	for (lane = 0; lane < threads; lane++)
		pthread_join(thread[lane], NULL);
}

void threads_merge(int group, struct shared *to)
{
	int lane;

	for (lane = 0; lanes && lane < threads; lane++) {
		struct lane *one = &lanes[group * threads + lane];

		histogram_add(&to->hit, &one->hit);
		histogram_add(&to->fault, &one->fault);
		memset(one, 0, sizeof(*one));
	}
}
