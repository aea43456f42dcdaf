#define _GNU_SOURCE
#include "program.h"

#include "acon.h"
#include "load.h"
#include "report.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_BYTES (64 << 10)	/* of what the program prints last */
#define PIPE_BYTES (1 << 20)	/* as much as an unprivileged program may have, too */
#define TICK_NS 20000000ull	/* a pipe that was read is read again after so long: a program that reports much pays little */
#define GRACE_NS 5000000000ull	/* from SIGTERM to SIGKILL */
#define REPORT_FD 3
#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define CHUNK 3000

static char **argv, **environment, *stdin_path, *root, *folder, *user;
static int output[2] = { -1, -1 }, report[2] = { -1, -1 };
static char kept[OUTPUT_BYTES];
static uint64_t printed, read_ns, started_ns, term_ns;
static int processes_before;

static char *own(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", parameter("program_folder", "/acon/cell"), name);
	return path;
}

/* A file of the cell, with a NUL behind it; NULL if there is none. */
static char *content(const char *name, size_t *length)
{
	FILE *file = fopen(own(name), "r");
	struct stat info;
	char *text;

	if (!file)
		return NULL;
	if (fstat(fileno(file), &info) || !(text = calloc(1, (size_t)info.st_size + 1)))
		give_up(name);
	*length = fread(text, 1, (size_t)info.st_size, file);
	fclose(file);
	return text;
}

static char *text_of(const char *name)
{
	size_t length;

	return content(name, &length);
}

/* The texts of a file, each ended by a NUL, as a list with a NULL at its end. */
static char **list(const char *name)
{
	size_t length = 0, start = 0, count = 0, i;
	char *text = content(name, &length), **items;

	for (i = 0; i < length; i++)
		count += !text[i];
	items = calloc(count + 1, sizeof(*items));
	if (!items)
		give_up(name);
	for (i = 0, count = 0; i < length; i++) {
		if (text[i])
			continue;
		items[count++] = text + start;
		start = i + 1;
	}
	return items;
}

static void make_folders(char *path)
{
	char *slash;

	for (slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(path, 0755) && errno != EEXIST)
			give_up(path);
		*slash = '/';
	}
}

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	struct stat info;
	char buffer[1 << 16];
	ssize_t count;

	if (in < 0 || fstat(in, &info))
		give_up(from);
	unlink(to);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, info.st_mode & 07777);
	if (out < 0)
		give_up(to);
	while ((count = read(in, buffer, sizeof(buffer))) > 0)
		if (write(out, buffer, (size_t)count) != count)
			give_up(to);
	if (count < 0 || close(out))
		give_up(to);
	close(in);
	unlink(from);
}

/* The user's files lie in the cell's folder, by number: they are moved, so that they are in memory once. */
static void place_files(void)
{
	char **places = list("places"), path[PATH_MAX], name[32];
	int i;

	for (i = 0; places[i]; i++) {
		snprintf(name, sizeof(name), "files/%d", i);
		snprintf(path, sizeof(path), "%s%s", root ? root : "", places[i]);
		make_folders(path);
		if (rename(own(name), path) && errno != EXDEV)
			give_up(places[i]);
		else if (access(own(name), F_OK) == 0)
			copy_file(own(name), path);
	}
}

static void make_pipe(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC))
		acon_fail("a pipe for the program");
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
}

void program_pipes(void)
{
	make_pipe(output);
	make_pipe(report);
}

/* Processes of other sessions than ours, such as those that the program has started; not those that have ended. */
static int count_processes(void)
{
	DIR *all = opendir("/proc");
	struct dirent *item;
	char path[300], text[512], state, *rest;
	int count = 0, session;

	while (all && (item = readdir(all))) {
		ssize_t length;
		int fd;

		if (!isdigit((unsigned char)item->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stat", item->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
		text[length > 0 ? length : 0] = 0;
		if (fd >= 0)
			close(fd);
		rest = strrchr(text, ')'); /* state ppid pgrp session: proc(5); the kernel's threads have 0 */
		if (rest && sscanf(rest, ") %c %*d %*d %d", &state, &session) == 2)
			count += state != 'Z' && state != 'X' && session && session != getsid(0);
	}
	if (all)
		closedir(all);
	return count;
}

void program_prepare(void)
{
	root = text_of("root");
	folder = text_of("folder");
	user = text_of("user");
	argv = list("argv");
	environment = list("environment");
	stdin_path = access(own("stdin"), F_OK) ? NULL : strdup(own("stdin"));
	if (!argv[0]) {
		errno = ENOENT;
		give_up(own("argv"));
	}
	place_files();
	put_text("/proc/self/oom_score_adj", "-999"); /* it is the program's memory that is to be taken back */
	processes_before = count_processes();
}

static _Noreturn void fail(const char *what)
{
	shared->program_errno = errno;
	snprintf(shared->program_what, sizeof(shared->program_what), "%s", what);
	_exit(126);
}

static unsigned long number_or(const char *text, unsigned long otherwise)
{
	char *rest;
	unsigned long value = strtoul(text, &rest, 10);

	return isdigit((unsigned char)*text) && !*rest ? value : otherwise;
}

/* USER[:GROUP], names of the root's /etc/passwd and /etc/group, or numbers. */
static void become(char *name)
{
	char *group = strchr(name, ':');
	unsigned long none = ~0ul, uid, gid = none;
	FILE *file = fopen("/etc/passwd", "r");
	struct passwd *entry = NULL;
	struct group *one;

	if (group)
		*group++ = 0;
	uid = number_or(name, none);
	while (file && (entry = fgetpwent(file)))
		if (!strcmp(entry->pw_name, name) || (uid != none && entry->pw_uid == uid))
			break;
	errno = ENOENT;
	if (!entry && uid == none)
		fail("user");
	if (entry) {
		uid = entry->pw_uid;
		gid = entry->pw_gid;
		setenv("HOME", entry->pw_dir, 1);
		setenv("USER", entry->pw_name, 1);
	} else {
		gid = uid;
	}
	if (file)
		fclose(file);
	if (group) {
		gid = number_or(group, none);
		file = fopen("/etc/group", "r");
		while (gid == none && file && (one = fgetgrent(file)))
			if (!strcmp(one->gr_name, group))
				gid = one->gr_gid;
		errno = ENOENT;
		if (gid == none)
			fail("group");
	}
	if (setgroups(0, NULL) || setgid((gid_t)gid) || setuid((uid_t)uid))
		fail("user");
}

static void set_environment(void)
{
	char **item, number[16];

	clearenv();
	setenv("PATH", PATH_DEFAULT, 1);
	setenv("HOME", "/root", 1);
	if (user && *user)
		become(user);
	snprintf(number, sizeof(number), "%d", REPORT_FD);
	setenv("ACON_REPORT_FD", number, 1);
	for (item = environment; *item; item++)
		putenv(*item);
}

/* As execvp(3), but for what cannot be executed: that is an error, not a script for /bin/sh. */
static void execute(void)
{
	const char *path = getenv("PATH"), *start, *end;
	char whole[PATH_MAX];
	int found = ENOENT;

	if (strchr(argv[0], '/')) {
		execv(argv[0], argv);
		shared->program_there = access(argv[0], F_OK) == 0;
		return;
	}
	for (start = path ? path : PATH_DEFAULT;; start = end + 1) {
		end = strchrnul(start, ':');
		snprintf(whole, sizeof(whole), "%.*s/%s", (int)(end - start), start, argv[0]);
		execv(whole, argv);
		if (access(whole, F_OK) == 0) {
			shared->program_there = 1;
			return;
		}
		if (errno != ENOENT && errno != ENOTDIR)
			found = errno;
		if (!*end)
			break;
	}
	errno = found;
}

static _Noreturn void become_program(void)
{
	int in = open(stdin_path ? stdin_path : "/dev/null", O_RDONLY | O_CLOEXEC);

	setsid();
	put_text("/proc/self/oom_score_adj", "1000");
	if (in < 0)
		fail("stdin");
	dup2(in, 0);
	dup2(output[1], 1);
	dup2(output[1], 2);
	/* a descriptor that has the number already would keep its flag and be closed */
	if (report[1] == REPORT_FD)
		fcntl(REPORT_FD, F_SETFD, 0);
	else
		dup2(report[1], REPORT_FD);
	if (root && *root && (chroot(root) || chdir("/")))
		fail("root");
	set_environment();
	if (chdir(folder && *folder ? folder : "/"))
		fail("folder");
	signal(SIGPIPE, SIG_DFL);
	execute();
	fail("exec");
}

void program_run(void)
{
	pid_t program;

	shared->program_started_ns = acon_now_ns();
	program = fork();
	if (!program)
		become_program();
	shared->program_pid = program;
	if (program < 0 || waitpid(program, &shared->program_status, 0) != program)
		give_up("waiting for the program");
	shared->access_ns = acon_now_ns() - shared->program_started_ns;
	shared->program_ran = 1;
}

void program_leave(void)
{
	shared->program_left = count_processes() - processes_before;
}

int program_report_fd(void)
{
	return acon_now_ns() - read_ns < TICK_NS ? -1 : report[0];
}

static void read_output(void)
{
	static char buffer[1 << 16];
	ssize_t count, i;

	while ((count = read(output[0], buffer, sizeof(buffer))) > 0)
		for (i = 0; i < count; i++)
			kept[printed++ % OUTPUT_BYTES] = buffer[i];
}

static void read_reports(uint64_t now)
{
	static char buffer[1 << 16];
	ssize_t count;

	while ((count = read(report[0], buffer, sizeof(buffer))) > 0) {
		report_take(buffer, (size_t)count, now);
		read_ns = now;
	}
}

static void end_in_time(uint64_t now)
{
	uint64_t limit = strtoull(parameter("program_ns", "0"), NULL, 10);

	if (!limit || !shared->program_pid || shared->program_ran || now - shared->program_started_ns < limit)
		return;
	if (!term_ns) {
		term_ns = now;
		shared->program_stopped = 1;
		kill(-shared->program_pid, SIGTERM);
	} else if (now - term_ns > GRACE_NS) {
		kill(-shared->program_pid, SIGKILL);
	}
}

void program_tick(void)
{
	uint64_t now = acon_now_ns();

	if (!started_ns && shared->program_started_ns) {
		started_ns = shared->program_started_ns;
		report_start(started_ns);
	}
	read_output();
	read_reports(now);
	end_in_time(now);
}

void program_result(FILE *out)
{
	program_tick();
	if (shared->program_ran)
		fprintf(out, ",\"program_status\":%d,\"program_left\":%d", shared->program_status, shared->program_left);
	if (shared->program_stopped)
		fprintf(out, ",\"program_stopped\":1");
	if (shared->program_what[0]) {
		fprintf(out, ",\"program_errno\":%d,\"program_there\":%d,\"program_what\":", shared->program_errno,
			shared->program_there);
		acon_json_string(out, shared->program_what);
	}
}

void program_events(FILE *out)
{
	uint64_t place = printed > OUTPUT_BYTES ? printed - OUTPUT_BYTES : 0;
	uint64_t end_ns = started_ns + shared->access_ns;

	report_json(out, shared->program_ran ? end_ns : acon_now_ns());
	while (place < printed) {
		char text[CHUNK];
		size_t count = 0;

		fprintf(out, "{\"event\":\"output\",\"place\":%llu,\"text\":", (unsigned long long)place);
		while (count < CHUNK && place < printed)
			text[count++] = kept[place++ % OUTPUT_BYTES];
		acon_json_bytes(out, text, count);
		fprintf(out, "}\n");
	}
	fflush(out);
}
