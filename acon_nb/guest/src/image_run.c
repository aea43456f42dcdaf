/*
 * image_run: run a program of the image below /image, whose tree is its root, as /acon/cell/run describes it.
 *
 *   image_run run         as a workload: ends with the program's status, as a shell does
 *   image_run measure     the same with its memory watched: its peak, what it touches, a sample of its pages; powers off
 *   image_run keep        lock the files of the guest's root: no swap takes them
 *   image_run hold BYTES  lock memory until so many bytes are available
 *
 * With a driver, the program is a server: the driver starts when the server is ready (it answers at "port:N", or has
 * written a text), the run ends with the driver, and the server is ended then. With for_ns the run ends after so long.
 */
#define _GNU_SOURCE
#include "acon.h"
#include "image_hold.h"
#include "image_root.h"
#include "image_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRIVER_GROUP "/sys/fs/cgroup/driver"
#define TICK_MS 20
#define REPORT_FD 3 /* as of program.c; it goes on to the program */
#define GRACE_NS 3000000000ull
#define CONSOLE_BYTES (64 << 10) /* of output; each byte costs a guest an exit */
#define TAIL_BYTES 2048
#define STEP 1.05       /* a further sample is taken when so much more memory is used */
#define NEAR 0.95       /* or, as long as so much of the most is used, every so often */
#define EVERY_NS 2000000000ull

static struct image_spec spec;
static FILE *port; /* only where it is measured */
static struct {
	pid_t pid;
	int status, ended, output;
} program, driver;
static char tail[TAIL_BYTES + 1];
static size_t tail_length, shown;
static uint64_t started_ns, ready_ns, driver_ns;
static const char *why = "exit";
static char failed[256];

static uint64_t since(void)
{
	return acon_now_ns() - started_ns;
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file))
		fprintf(stderr, "acon: %s: %s\n", path, strerror(errno));
}

/* Start a program of the image; its output comes by a pipe, and so does the reason if it does not start. */
static pid_t start(char *const *argv, const char *group, int *output)
{
	int out[2], problem[2];
	const char *step = "";
	char path[128];
	ssize_t length;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) || pipe2(problem, O_CLOEXEC))
		acon_fail("a pipe");
	pid = fork();
	if (pid < 0)
		acon_fail("fork");
	if (!pid) {
		setsid();
		put("/proc/self/oom_score_adj", "1000");
		if (port) {
			snprintf(path, sizeof(path), "%s/cgroup.procs", group);
			put(path, "0");
		}
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		signal(SIGPIPE, SIG_DFL);
		root_enter(&spec, argv, &step);
		dprintf(problem[1], "%s (%s): %s", step, argv[0], strerror(errno));
		_exit(127);
	}
	close(out[1]);
	close(problem[1]);
	length = read(problem[0], failed, sizeof(failed) - 1);
	failed[length > 0 ? length : 0] = 0;
	close(problem[0]);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	*output = out[0];
	return pid;
}

static void keep(const char *text, size_t length)
{
	if (length > TAIL_BYTES) {
		text += length - TAIL_BYTES;
		length = TAIL_BYTES;
	}
	if (tail_length + length > TAIL_BYTES) {
		size_t over = tail_length + length - TAIL_BYTES;

		memmove(tail, tail + over, tail_length - over);
		tail_length -= over;
	}
	memcpy(tail + tail_length, text, length);
	tail_length += length;
	tail[tail_length] = 0;
}

static void is_ready(void)
{
	if (!ready_ns)
		ready_ns = since();
}

/* Take what a program wrote, as long as there is any; a closed pipe is not looked at again. */
static void listen_to(int *output)
{
	char text[4096];
	ssize_t length;

	while (*output >= 0 && (length = read(*output, text, sizeof(text))) != 0) {
		if (length < 0)
			return;
		keep(text, (size_t)length);
		if (shown < CONSOLE_BYTES)
			shown += fwrite(text, 1, (size_t)length, stderr);
		if (spec.ready && strncmp(spec.ready, "port:", 5) && memmem(tail, tail_length, spec.ready, strlen(spec.ready)))
			is_ready();
	}
	if (*output >= 0)
		close(*output);
	*output = -1;
}

static void knock(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd;

	if (!spec.ready || ready_ns || strncmp(spec.ready, "port:", 5))
		return;
	to.sin_port = htons((uint16_t)atoi(spec.ready + 5));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof(to)))
		is_ready();
	if (fd >= 0)
		close(fd);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == program.pid) {
			program.ended = 1;
			program.status = status;
		} else if (pid == driver.pid) {
			driver.ended = 1;
			driver.status = status;
		}
	}
}

/* What the program holds now; where its memory grew or some time has gone, a sample of its pages. */
static void watch(void)
{
	static uint64_t window_ns, sampled, sampled_ns, most;
	uint64_t now = acon_now_ns(), resident, touched;
	long long current = image_number(PROGRAM_GROUP "/memory.current", NULL);

	if (current < 0)
		return;
	if ((uint64_t)current > most)
		most = (uint64_t)current;
	if (current > 1 << 20 && ((double)current > (double)sampled * STEP ||
				  ((double)current > (double)most * NEAR && now - sampled_ns > EVERY_NS))) {
		pages_take(PROGRAM_GROUP, (uint64_t)current);
		if ((uint64_t)current > sampled)
			sampled = (uint64_t)current;
		sampled_ns = acon_now_ns();
	}
	if (!window_ns) {
		window_ns = now;
		touched_begin(PROGRAM_GROUP);
	}
	if (now - window_ns < spec.window_ns)
		return;
	touched = touched_bytes(PROGRAM_GROUP, &resident);
	fprintf(port, "{\"event\":\"image-watch\",\"t_ns\":%llu,\"window_ns\":%llu,\"current\":%lld,\"touched\":%llu,\"resident\":%llu",
		(unsigned long long)since(), (unsigned long long)(now - window_ns), current, (unsigned long long)touched,
		(unsigned long long)resident);
	fprintf(port, ",\"stat\":");
	acon_json_table(port, PROGRAM_GROUP "/memory.stat");
	fprintf(port, "}\n");
	fflush(port);
	touched_begin(PROGRAM_GROUP);
	window_ns = acon_now_ns();
}

/* Whether the run is to end; `why` says how. */
static int is_over(void)
{
	if (program.ended)
		return 1;
	if (spec.drivers && driver.ended)
		return why = "driver", 1;
	if (spec.for_ns && since() > spec.for_ns)
		return why = "for", 1;
	if (spec.limit_ns && since() > spec.limit_ns)
		return why = "limit", 1;
	return 0;
}

static void follow(void)
{
	while (!is_over()) {
		struct pollfd from[] = { { program.output, POLLIN, 0 }, { driver.output, POLLIN, 0 } };

		poll(from, 2, port || (spec.ready && !ready_ns) ? TICK_MS : 5 * TICK_MS);
		listen_to(&program.output);
		listen_to(&driver.output);
		knock();
		reap();
		if (ready_ns && spec.drivers && !driver.pid) {
			driver_ns = since();
			dprintf(REPORT_FD, "begin\n"); /* what a server reports of its start does not count */
			driver.pid = start(spec.driver, DRIVER_GROUP, &driver.output);
		}
		if (port)
			watch();
	}
	listen_to(&program.output);
	listen_to(&driver.output);
}

/* End what still runs: asked first, then forced. */
static void stop(pid_t pid, const int *ended)
{
	uint64_t until = acon_now_ns() + GRACE_NS;

	if (!pid || *ended)
		return;
	kill(-pid, SIGTERM);
	while (!*ended && acon_now_ns() < until) {
		usleep(TICK_MS * 1000);
		reap();
	}
	kill(-pid, SIGKILL);
}

/* End whatever still runs in the image, wherever it was started from, as a container's end does. */
static void stop_all(void)
{
	int tries, left = 1;

	for (tries = 0; left && tries < 50; tries++) {
		DIR *folder = opendir("/proc");
		struct dirent *item;
		char path[64], root[64];

		for (left = 0; folder && (item = readdir(folder));) {
			pid_t pid = (pid_t)strtol(item->d_name, NULL, 10);
			ssize_t length;

			snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
			length = pid > 0 ? readlink(path, root, sizeof(root) - 1) : -1;
			if (length != sizeof(IMAGE_ROOT) - 1 || memcmp(root, IMAGE_ROOT, (size_t)length))
				continue;
			left = 1;
			kill(pid, SIGKILL);
		}
		if (folder)
			closedir(folder);
		if (left)
			usleep(TICK_MS * 1000);
		reap();
	}
}

static void begin(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	put("/proc/self/oom_score_adj", "-1000");
	program.output = driver.output = -1;
	started_ns = acon_now_ns();
	program.pid = start(spec.argv, PROGRAM_GROUP, &program.output);
}

/* The status that stands for the run: the driver's where that ended it, else the program's; 0 where it was ended by us. */
static int status_of_run(void)
{
	return !strcmp(why, "driver") ? driver.status : !strcmp(why, "exit") ? program.status : 0;
}

static int run(void)
{
	int status;

	spec_read(&spec);
	root_prepare();
	begin();
	follow();
	if (driver.ended)
		dprintf(REPORT_FD, "latency image-run %llu\nend\n", (unsigned long long)(since() - driver_ns));
	stop(driver.pid, &driver.ended);
	stop(program.pid, &program.ended);
	stop_all();
	status = status_of_run();
	if (failed[0])
		fprintf(stderr, "acon: %s\n", failed);
	if (spec.drivers && strcmp(why, "driver"))
		return 125; /* the server ended first, or never was ready */
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}

static void put_group(const char *name, const char *group)
{
	char path[128];
	long long peak;

	snprintf(path, sizeof(path), "%s/memory.peak", group);
	peak = image_number(path, NULL);
	fprintf(port, ",\"%s_peak\":%lld", name, peak);
	snprintf(path, sizeof(path), "%s/memory.events", group);
	fprintf(port, ",\"%s_oom_kills\":%lld", name, image_number(path, "oom_kill"));
}

static void put_end(void)
{
	fprintf(port, "{\"event\":\"image-end\",\"t_ns\":%llu,\"why\":\"%s\",\"status\":%d,\"ready_ns\":%llu,\"driver_ns\":%llu",
		(unsigned long long)since(), why, status_of_run(), (unsigned long long)ready_ns, (unsigned long long)driver_ns);
	put_group("program", PROGRAM_GROUP);
	put_group("driver", DRIVER_GROUP);
	fprintf(port, ",\"failed\":");
	acon_json_string(port, failed);
	fprintf(port, ",\"output\":");
	acon_json_string(port, tail);
	fprintf(port, "}\n");
	fflush(port);
}

static int measure(void)
{
	dup2(open("/dev/null", O_WRONLY), REPORT_FD); /* nobody reads what it reports */
	spec_read(&spec);
	port = acon_port();
	if (!port)
		return 1;
	setvbuf(port, NULL, _IOFBF, 1 << 17);
	mkdir(PROGRAM_GROUP, 0755);
	mkdir(DRIVER_GROUP, 0755);
	keep_files();
	root_prepare();
	fprintf(port, "{\"event\":\"image-start\",\"meminfo_kib\":");
	acon_json_table(port, "/proc/meminfo");
	fprintf(port, "}\n");
	fflush(port);
	pages_start(spec.sample_pages);
	begin();
	follow();
	put_end();
	pages_send(port);
	fclose(port);
	acon_power_off();
}

int main(int count, char **arg)
{
	if (count == 2 && !strcmp(arg[1], "run"))
		return run();
	if (count == 2 && !strcmp(arg[1], "measure"))
		return measure();
	if (count == 2 && !strcmp(arg[1], "keep")) {
		keep_files();
		return 0;
	}
	if (count == 3 && !strcmp(arg[1], "hold")) {
		hold_until(strtoull(arg[2], NULL, 10));
		return 0;
	}
	fprintf(stderr, "usage: image_run run | measure | keep | hold BYTES\n");
	return 2;
}
