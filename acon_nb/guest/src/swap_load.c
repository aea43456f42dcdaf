/*
 * swap-load: fill memory past the RAM, use it, and say what that took.
 *
 *   swap_load run PAGES_FILE [OUT]      OUT: a file for the lines of JSON (default: the results port)
 *   swap_load documents COUNT SEED      on the host: SET commands for redis, to make a corpus of its memory
 *   swap_load partition DISK NUMBER START_BYTES LENGTH_BYTES   make a partition of a disk without a table
 *   swap_load order LOCALITY COUNT SEED on the host: the thing of each rank of Zipf's law, a line each
 *
 * What to do comes by environment variables, cell_NAME (see `parameters`). A worker does the accesses; its parent,
 * locked in memory and spared by the OOM killer, does all the talking, so that a worker that is killed or stuck
 * leaves its histograms and counters behind.
 */
#define _GNU_SOURCE
#include "acon.h"
#include "counters.h"
#include "groups.h"
#include "load.h"
#include "program.h"
#include "redis.h"
#include "threads.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM_TICK_MS 20
#define PROGRAM_SAMPLE_NS 250000000

static const char *const phase_names[] = { "fill", "settle", "warm-up", "access", "end" };

static FILE *port;

static void put_event(const char *event)
{
	uint64_t now = shared->pause_start_ns ? shared->pause_start_ns : acon_now_ns();

	fprintf(port, "{\"event\":\"%s\",\"phase\":\"%s\",\"done\":%llu,\"t_ns\":%llu", event, phase_names[shared->phase],
		(unsigned long long)shared->done,
		(unsigned long long)(shared->started_ns ? now - shared->started_ns - shared->paused_ns : 0));
}

static void end_event(void)
{
	fprintf(port, "}\n");
	fflush(port);
}

static void put_histogram(const char *name, const struct histogram *h)
{
	fprintf(port, "{\"event\":\"timing\",\"name\":\"%s\",", name);
	histogram_json(port, h);
	end_event();
}

/* Everything that is known at the end, however it came. */
static void put_result(int status)
{
	put_event("snapshot");
	counters_all(port);
	groups_counters(port);
	end_event();
	groups_merge();
	put_histogram("fill", &shared->fill);
	put_histogram("hit", &shared->hit);
	put_histogram("fault", &shared->fault);
	put_event("result");
	fprintf(port, ",\"fill_ns\":%llu,\"access_ns\":%llu,\"things\":%llu,\"corrupt\":%llu",
		(unsigned long long)(shared->phase == FILL ? phase_ns() : shared->fill_ns),
		(unsigned long long)(shared->phase == ACCESS ? phase_ns() : shared->access_ns),
		(unsigned long long)shared->things, (unsigned long long)shared->corrupt);
	fprintf(port, ",\"warmed\":%llu,\"half_ns\":%llu,\"rounds\":%llu", (unsigned long long)shared->warmed,
		(unsigned long long)shared->half_ns, (unsigned long long)shared->rounds);
	if (reclaimed->rounds)
		fprintf(port, ",\"reclaim\":{\"rounds\":%llu,\"backoffs\":%llu,\"asked_bytes\":%llu,\"refused\":%llu}",
			(unsigned long long)reclaimed->rounds, (unsigned long long)reclaimed->backoffs,
			(unsigned long long)reclaimed->asked_bytes, (unsigned long long)reclaimed->refused);
	if (shared->killed_other)
		fprintf(port, ",\"signal\":%d", SIGKILL);
	if (shared->held)
		fprintf(port, ",\"held\":%llu", (unsigned long long)shared->held);
	if (shared->corrupt_seen)
		fprintf(port, ",\"first_corrupt\":%llu", (unsigned long long)shared->first_corrupt);
	if (program_workload())
		program_result(port);
	if (WIFSIGNALED(status))
		fprintf(port, ",\"signal\":%d", WTERMSIG(status));
	if (shared->failed[0]) {
		fprintf(port, ",\"failed\":");
		acon_json_string(port, shared->failed);
	}
	end_event();
	if (program_workload())
		program_events(port);
}

/* Without sync(2), which would wait for what is stuck. */
static void power_off(void)
{
	reboot(RB_POWER_OFF);
	acon_fail("power off");
}

/* Show on the console who waits, and for what. */
static void show_blocked(void)
{
	klogctl(8, NULL, 8); /* SYSLOG_ACTION_CONSOLE_LEVEL: all of it, whatever "quiet" said */
	put_text("/proc/sysrq-trigger", "w");
	put_text("/proc/sysrq-trigger", "t");
	put_text("/proc/sysrq-trigger", "m");
}

static void put_sample(void)
{
	put_event("sample");
	counters_sample(port);
	end_event();
}

/* What the worker asks for: it waits. */
static void serve(char what)
{
	if (what == 'c') {
		put_event("snapshot");
		counters_all(port);
		groups_counters(port);
		end_event();
	} else {
		put_sample();
	}
	if (write(to_worker[1], &what, 1) != 1)
		acon_fail("worker");
}

/* As watch, for a program, which tells nothing of its progress: it is looked at from time to time. */
static int watch_program(pid_t worker)
{
	uint64_t sampled_ns = acon_now_ns();
	int status = 0;
	char what;

	for (;;) {
		struct pollfd from[] = { { .fd = to_parent[0], .events = POLLIN },
					 { .fd = program_report_fd(), .events = POLLIN } };

		poll(from, 2, PROGRAM_TICK_MS);
		program_tick();
		if (from[0].revents & POLLIN && read(to_parent[0], &what, 1) == 1)
			serve(what);
		else if (waitpid(worker, &status, WNOHANG) == worker)
			return status;
		if (acon_now_ns() - sampled_ns >= PROGRAM_SAMPLE_NS) {
			sampled_ns = acon_now_ns();
			put_sample();
		}
	}
}

/* Serve the worker until it ends, or makes no progress for too long (then it is left as it is); returns its status. */
static int watch(pid_t worker, int *stalled)
{
	struct pollfd from = { .fd = to_parent[0], .events = POLLIN };
	uint64_t last_done = 0, last_ns = acon_now_ns();
	enum phase last_phase = END;
	int status = 0;
	char what;

	for (;;) {
		int ready = poll(&from, 1, (int)(parameters.stall_ns / 5000000));

		if (ready > 0 && read(to_parent[0], &what, 1) == 1)
			serve(what);
		else if (waitpid(worker, &status, WNOHANG) == worker)
			return status;
		if (groups_done() != last_done || shared->phase != last_phase || shared->phase == SETTLE ||
		    !shared->started_ns) { /* redis may take its time to start */
			last_done = groups_done();
			last_phase = shared->phase;
			last_ns = acon_now_ns();
		} else if (acon_now_ns() - last_ns > parameters.stall_ns) {
			put_event("stall");
			counters_sample(port);
			end_event();
			show_blocked();
			*stalled = 1;
			return 0;
		}
	}
}

static uint64_t number(const char *name, const char *otherwise)
{
	return strtoull(parameter(name, otherwise), NULL, 10);
}

static void take_parameters(void)
{
	parameters.workload = parameter("workload", "tmpfs");
	parameters.folder = parameter("folder", "/fill");
	parameters.file = parameter("file", "/disk/file");
	parameters.steps = parameter("settle", "");
	parameters.steps_every_ns = number("settle_every_ns", "0");
	parameters.disk = parameter("disk", "delay");
	parameters.pages = number("pages", "1024");
	parameters.file_pages = number("file_pages", "0");
	parameters.accesses = number("accesses", "1024");
	parameters.until_steady = number("until_steady", "0");
	parameters.steady_per_million = number("steady_per_million", "50000");
	parameters.write_per_million = number("write_per_million", "0");
	parameters.samples = number("samples", "40");
	parameters.seed = number("seed", "1");
	parameters.stall_ns = number("stall_ns", "10000000000");
	parameters.pattern.name = parameter("pattern", "random");
	parameters.pattern.locality = parameter("locality", "uniform");
	parameters.pattern.seed = parameters.seed;
	parameters.pattern.exponent = strtod(parameter("zipf_exponent", "0.9"), NULL);
}

static int run(const char *pages_file, const char *out)
{
	int status, stalled = 0;
	pid_t worker;

	take_parameters();
	groups_take_parameters();
	port = out ? fopen(out, "w") : acon_port();
	if (!port || pipe(to_parent) || pipe(to_worker))
		acon_fail("starting");
	setvbuf(port, NULL, _IOFBF, 1 << 17);
	counters_start(parameters.disk);
	if (program_workload())
		program_pipes();
	counters_watch(number("watch", "0") != 0);
	fflush(NULL);
	worker = fork();
	if (!worker) {
		close(to_parent[0]);
		close(to_worker[1]);
		work(pages_file);
	}
	close(to_parent[1]); /* its end is then seen by poll */
	put_text("/proc/self/oom_score_adj", "-1000");
	lock_up(MCL_CURRENT | MCL_FUTURE);
	start_rounds();
	start_reclaim();
	status = program_workload() ? watch_program(worker) : watch(worker, &stalled);
	put_result(status);
	if (fclose(port))
		acon_fail("results port");
	if (!out) /* not by the shell: a guest that is stuck may not be able to start a program */
		power_off();
	return stalled || status;
}

static int documents(uint64_t count, uint64_t seed)
{
	char command[DOCUMENT_BYTES + 128];
	uint64_t i;

	for (i = 0; i < count; i++)
		if (!fwrite(command, document_set(command, i, (uint32_t)seed - 1), 1, stdout))
			return 1;
	return fflush(stdout) != 0;
}

/* Tell the kernel of a partition, so that a disk needs no table of them. */
static int partition(const char *disk, int number, long long start, long long length)
{
	struct blkpg_partition part = { .start = start, .length = length, .pno = number };
	struct blkpg_ioctl_arg what = { .op = BLKPG_ADD_PARTITION, .datalen = sizeof(part), .data = &part };
	int fd = open(disk, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, BLKPG, &what))
		acon_fail(disk);
	return 0;
}

static int order(const char *locality, uint64_t count, uint64_t seed)
{
	struct pattern pattern = { "zipf", locality, 1, seed, 0 };
	uint64_t rank;

	if ((errno = pattern_reserve(&pattern, count)) || (errno = pattern_start(&pattern, count)))
		acon_fail(locality);
	for (rank = 0; rank < count; rank++)
		printf("%llu\n", (unsigned long long)pattern_at(rank));
	return fflush(stdout) != 0;
}

int main(int count, char **arg)
{
	if ((count == 3 || count == 4) && !strcmp(arg[1], "run"))
		return run(arg[2], count == 4 ? arg[3] : NULL);
	if (count == 4 && !strcmp(arg[1], "documents"))
		return documents(strtoull(arg[2], NULL, 10), strtoull(arg[3], NULL, 10));
	if (count == 5 && !strcmp(arg[1], "order"))
		return order(arg[2], strtoull(arg[3], NULL, 10), strtoull(arg[4], NULL, 10));
	if (count == 6 && !strcmp(arg[1], "partition"))
		return partition(arg[2], atoi(arg[3]), atoll(arg[4]), atoll(arg[5]));
	fprintf(stderr, "usage: swap_load run PAGES_FILE [OUT] | documents COUNT SEED | order LOCALITY COUNT SEED |\n"
			"       partition DISK NUMBER START_BYTES LENGTH_BYTES\n");
	return 2;
}
