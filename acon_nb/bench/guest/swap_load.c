/*
 * swap-load: fill memory past the RAM, use it, and say what that took.
 *
 *   swap_load run PAGES_FILE [OUT]      OUT: a file for the lines of JSON (default: the results port)
 *   swap_load documents COUNT SEED      on the host: SET commands for redis, to make a corpus of its memory
 *
 * What to do comes by environment variables, cell_NAME (see `parameters`). A worker does the accesses; its parent,
 * locked in memory and spared by the OOM killer, does all the talking, so that a worker that is killed or stuck
 * leaves its histograms and counters behind.
 */
#define _GNU_SOURCE
#include "acon.h"
#include "counters.h"
#include "histogram.h"
#include "pages.h"
#include "redis.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILE_PAGES 256
#define REDIS_SOCKET "/run/redis"
#define PROGRAM_SAMPLE_MS 250
#define CHECK_EVERY 512 /* documents between looks at redis' size */

enum phase { FILL, SETTLE, WARM, ACCESS, END };
static const char *const phase_names[] = { "fill", "settle", "warm-up", "access", "end" };

/* From the environment, all but the texts as numbers. */
static struct {
	const char *workload, *pattern, *folder, *settle, *disk, *program;
	uint64_t pages, accesses, write_per_million, samples, seed, stall_ns;
	double exponent;
} parameters;

/* What worker and parent share. */
static struct shared {
	struct histogram fill, hit, fault;
	uint64_t started_ns, fill_ns, access_ns, paused_ns, pause_start_ns, phase_start_ns, phase_paused_ns;
	uint64_t done, planned, things, corrupt, first_corrupt;
	int program_status;
	char corrupt_seen, program_ran, failed[256];
	enum phase phase;
} *shared;

static int to_parent[2], to_worker[2];
static FILE *port;

/* Root of a guest may; a user who tries the program on a host may not, and need not. */
static void lock_up(int what)
{
	if (mlockall(what))
		fprintf(stderr, "swap-load: memory is not locked: %s\n", strerror(errno));
}

/* The variable cell_NAME. */
static const char *text(const char *name, const char *otherwise)
{
	char whole[64];
	const char *value;

	snprintf(whole, sizeof(whole), "cell_%s", name);
	value = getenv(whole);
	return value ? value : otherwise;
}

/* ---- the worker ---- */

static _Noreturn void give_up(const char *what)
{
	snprintf(shared->failed, sizeof(shared->failed), "%s: %s", what, strerror(errno));
	_exit(3);
}

/* Let the parent count ('c' all, 's' a sample); the time that takes is not the workload's. */
static void pause_for(char what)
{
	shared->pause_start_ns = acon_now_ns();
	if (write(to_parent[1], &what, 1) != 1 || read(to_worker[0], &what, 1) != 1)
		_exit(4);
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

static uint64_t phase_ns(void)
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

static void note_corrupt(uint64_t number)
{
	if (!shared->corrupt_seen)
		shared->first_corrupt = number;
	shared->corrupt_seen = 1;
	shared->corrupt++;
}

/* "PATH=VALUE;PATH=VALUE": what is to be done between fill and accesses, such as zram's recompression. */
static void settle(void)
{
	char *text = strdup(parameters.settle), *rest = text, *item;

	begin(SETTLE, 0);
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
}

struct store {
	void (*fill)(uint64_t number);
	/* Returns 1 for a fault, 0 for a hit; *ns is the latency. */
	int (*access)(uint64_t number, int writes, uint64_t *ns);
};

static uint32_t *versions;

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

static int tmpfs_access(uint64_t number, int writes, uint64_t *ns)
{
	static uint64_t page[PAGE / 8];
	uint64_t file = number / FILE_PAGES, place = number % FILE_PAGES * PAGE, start;
	unsigned char there = 0;

	(void)writes;
	if (!maps[file]) {
		maps[file] = mmap(NULL, FILE_PAGES * PAGE, PROT_READ, MAP_SHARED, files[file], 0);
		if (maps[file] == MAP_FAILED)
			give_up("mapping a file");
	}
	if (mincore(maps[file] + place, PAGE, &there))
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

	getrusage(RUSAGE_SELF, &usage);
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

static uint64_t redis_bytes(void)
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

static const struct store stores[] = {
	{ tmpfs_fill, tmpfs_access },
	{ anon_fill, anon_access },
	{ redis_fill, redis_access },
};

/* Prepare the store and all memory of our own, lock that, and only then make room for the data. */
static const struct store *prepare(const char *pages_file)
{
	uint64_t count = parameters.pages, file_count = count / FILE_PAGES + 1;
	int which = !strcmp(parameters.workload, "anon") ? 1 : !strcmp(parameters.workload, "redis") ? 2 : 0;
	struct rlimit many = { 1 << 20, 1 << 20 };
	char path[64];

	if ((errno = pages_load(pages_file, parameters.seed)))
		give_up(pages_file);
	files = calloc(file_count, sizeof(*files));
	maps = calloc(file_count, sizeof(*maps));
	/* documents are smaller than pages, and as many versions as there may be are kept */
	versions = calloc(which == 2 ? count * 8 : count, sizeof(*versions));
	if (!files || !maps || !versions)
		give_up("memory");
	if (which == 2) {
		redis_pid = strtol(text("redis_pid", "0"), NULL, 10);
		redis_link = redis_connect(text("redis", REDIS_SOCKET));
		snprintf(path, sizeof(path), "/proc/%ld/stat", redis_pid);
		redis_stat = open(path, O_RDONLY | O_CLOEXEC);
		if (redis_link < 0 || redis_stat < 0)
			give_up("redis");
	} else if ((errno = pattern_start(parameters.pattern, count, parameters.exponent, parameters.seed))) {
		give_up(parameters.pattern);
	}
	lock_up(MCL_CURRENT);
	if (file_count > 1000 && setrlimit(RLIMIT_NOFILE, &many))
		give_up("opening many files");
	if (which == 1) {
		region = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (region == MAP_FAILED)
			give_up("mapping memory");
		madvise(region, count * PAGE, MADV_NOHUGEPAGE); /* a kernel without huge pages refuses */
	}
	return &stores[which];
}

static void fill(const struct store *store)
{
	uint64_t count = parameters.pages, sampled = 0, i;
	int redis = store == &stores[2];

	begin(FILL, count);
	for (i = 0; redis ? i < count * 8 : i < count; i++) {
		store->fill(i);
		if (!redis) {
			step(count / (parameters.samples / 2 + 1));
		} else if (i % CHECK_EVERY == 0) {
			uint64_t bytes = redis_bytes();

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
}

static void use(const struct store *store, enum phase phase, uint64_t accesses)
{
	uint64_t i, per_sample = accesses / (parameters.samples / 4 + 1);

	begin(phase, accesses);
	for (i = 0; i < accesses; i++) {
		uint64_t number = pattern_next(), ns = 0;
		int writes = pattern_random() % 1000000 < parameters.write_per_million, fault;

		fault = store->access(number, writes, &ns);
		if (phase == ACCESS)
			histogram_note(fault ? &shared->fault : &shared->hit, ns);
		step(per_sample);
	}
	if (phase == ACCESS)
		shared->access_ns = phase_ns();
}

/* Any program in place of our own work: its words are parted by "+", its output goes to the console. */
static void run_program(void)
{
	char *words[64] = { NULL }, *rest = strdup(parameters.program);
	int count = 0;
	pid_t program;

	while (rest && count < 63)
		words[count++] = strsep(&rest, "+");
	pause_for('c');
	begin(ACCESS, 1);
	program = fork();
	if (!program) {
		execvp(words[0], words);
		give_up(words[0]);
	}
	if (program < 0 || waitpid(program, &shared->program_status, 0) != program)
		give_up("waiting for the program");
	shared->access_ns = phase_ns();
	shared->program_ran = 1;
	shared->done = 1;
	pause_for('c');
	shared->phase = END;
	_exit(0);
}

static void put_score(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "swap-load: %s does not take %s\n", path, text);
	if (fd >= 0)
		close(fd);
}

static _Noreturn void work(const char *pages_file)
{
	const struct store *store;
	char path[64];

	put_score("/proc/self/oom_score_adj", "1000");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (*parameters.program) {
		shared->started_ns = acon_now_ns();
		run_program();
	}
	store = prepare(pages_file);
	if (redis_pid) {
		snprintf(path, sizeof(path), "/proc/%ld/oom_score_adj", redis_pid);
		put_score(path, "1000");
		put_score("/proc/self/oom_score_adj", "0");
	}
	shared->started_ns = acon_now_ns();
	pause_for('c');
	fill(store);
	settle();
	pause_for('c');
	if (store == &stores[2] &&
	    (errno = pattern_start(parameters.pattern, shared->things, parameters.exponent, parameters.seed)))
		give_up(parameters.pattern);
	use(store, WARM, parameters.accesses / 2);
	pause_for('c');
	use(store, ACCESS, parameters.accesses - parameters.accesses / 2);
	pause_for('c'); /* while the memory is still held */
	shared->phase = END;
	_exit(0);
}

/* ---- the parent ---- */

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
	end_event();
	put_histogram("fill", &shared->fill);
	put_histogram("hit", &shared->hit);
	put_histogram("fault", &shared->fault);
	put_event("result");
	fprintf(port, ",\"fill_ns\":%llu,\"access_ns\":%llu,\"things\":%llu,\"corrupt\":%llu",
		(unsigned long long)(shared->phase == FILL ? phase_ns() : shared->fill_ns),
		(unsigned long long)(shared->phase == ACCESS ? phase_ns() : shared->access_ns),
		(unsigned long long)shared->things, (unsigned long long)shared->corrupt);
	if (shared->corrupt_seen)
		fprintf(port, ",\"first_corrupt\":%llu", (unsigned long long)shared->first_corrupt);
	if (shared->program_ran)
		fprintf(port, ",\"program_status\":%d", shared->program_status);
	if (WIFSIGNALED(status))
		fprintf(port, ",\"signal\":%d", WTERMSIG(status));
	if (shared->failed[0]) {
		fprintf(port, ",\"failed\":");
		acon_json_string(port, shared->failed);
	}
	end_event();
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
	put_score("/proc/sysrq-trigger", "w");
	put_score("/proc/sysrq-trigger", "t");
	put_score("/proc/sysrq-trigger", "m");
}

/* Serve the worker until it ends, or makes no progress for too long (then it is left as it is); returns its status. */
static int watch(pid_t worker, int *stalled)
{
	struct pollfd from = { .fd = to_parent[0], .events = POLLIN };
	uint64_t last_done = 0, last_ns = acon_now_ns();
	enum phase last_phase = END;
	int status = 0, program = *parameters.program != 0;
	char what;

	for (;;) {
		int ready = poll(&from, 1, program ? PROGRAM_SAMPLE_MS : (int)(parameters.stall_ns / 5000000));

		if (ready > 0 && read(to_parent[0], &what, 1) == 1) {
			put_event(what == 'c' ? "snapshot" : "sample");
			what == 'c' ? counters_all(port) : counters_sample(port);
			end_event();
			if (write(to_worker[1], &what, 1) != 1)
				acon_fail("worker");
		} else if (waitpid(worker, &status, WNOHANG) == worker) {
			return status;
		} else if (program) { /* which tells nothing of its progress: it is looked at from time to time */
			put_event("sample");
			counters_sample(port);
			end_event();
			continue;
		}
		if (shared->done != last_done || shared->phase != last_phase || shared->phase == SETTLE ||
		    !shared->started_ns) { /* redis may take its time to start */
			last_done = shared->done;
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
	return strtoull(text(name, otherwise), NULL, 10);
}

static void take_parameters(void)
{
	parameters.workload = text("workload", "tmpfs");
	parameters.pattern = text("pattern", "random");
	parameters.folder = text("folder", "/fill");
	parameters.settle = text("settle", "");
	parameters.disk = text("disk", "sda");
	parameters.program = text("program", "");
	parameters.pages = number("pages", "1024");
	parameters.accesses = number("accesses", "1024");
	parameters.write_per_million = number("write_per_million", "0");
	parameters.samples = number("samples", "40");
	parameters.seed = number("seed", "1");
	parameters.stall_ns = number("stall_ns", "10000000000");
	parameters.exponent = strtod(text("zipf_exponent", "0.9"), NULL);
}

static int run(const char *pages_file, const char *out)
{
	int status, stalled = 0;
	pid_t worker;

	take_parameters();
	port = out ? fopen(out, "w") : acon_port();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!port || shared == MAP_FAILED || pipe(to_parent) || pipe(to_worker))
		acon_fail("starting");
	setvbuf(port, NULL, _IOFBF, 1 << 17);
	counters_start(parameters.disk);
	fflush(NULL);
	worker = fork();
	if (!worker) {
		close(to_parent[0]);
		close(to_worker[1]);
		work(pages_file);
	}
	close(to_parent[1]); /* its end is then seen by poll */
	put_score("/proc/self/oom_score_adj", "-1000");
	lock_up(MCL_CURRENT | MCL_FUTURE);
	status = watch(worker, &stalled);
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

int main(int count, char **arg)
{
	if ((count == 3 || count == 4) && !strcmp(arg[1], "run"))
		return run(arg[2], count == 4 ? arg[3] : NULL);
	if (count == 4 && !strcmp(arg[1], "documents"))
		return documents(strtoull(arg[2], NULL, 10), strtoull(arg[3], NULL, 10));
	fprintf(stderr, "usage: swap_load run PAGES_FILE [OUT] | documents COUNT SEED\n");
	return 2;
}
