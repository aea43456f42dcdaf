/*
 * exec-agent: runs commands in a guest for its host, over the virtio-serial port acon.exec.
 *
 * As rdinit= it starts itself in the background and becomes the user's init (/acon/next, or /init). Under its other name,
 * exec-ready, as the last program of our /init, it tells the one in the background that the guest is set up, and stays
 * as process 1.
 *
 * Frames, both ways: type (1 byte), 0, number of the command (2 bytes), length of what follows (4 bytes), little endian.
 *   from the host: S start, I input, E end of the input, K a signal (1 byte), P power off
 *   to the host:   H hello ("script": /init is our own script; else ""), R set up, O output, 2 errors, C how much of
 *                  the input was taken (4 bytes), Z ended (kind 0 exit status, 1 signal, 2 errno of exec; 4 bytes)
 * S has the number of arguments and of variables (2 bytes each), then the folder, arguments and variables, each with
 * its NUL. The host sends no more than WINDOW bytes of input that were not taken.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT "acon.exec"
#define SYS "/acon/sys"
#define NODE "/acon/port"
#define READY "/acon/ready"
#define NEXT "/acon/next"
#define WINDOW 65536
#define CHUNK 32768
#define COMMANDS 64
#define FRAME_MAX (1 << 20)
#define OUT_MAX (256 << 10)
#define OURS "# The first process of the guest"

struct buffer {
	char *data;
	size_t start, end, size;
};

struct command {
	int used, ended;
	uint16_t number;
	pid_t pid;
	int in, out[2]; /* our ends of its standard input, output and error; -1: closed */
	int in_ends, status;
	struct buffer input;
};

static struct command commands[COMMANDS];
static struct buffer incoming, outgoing;
static int port = -1, child_pipe[2], ready = -1;

static _Noreturn void fail(const char *what)
{
	dprintf(2, "acon exec: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static size_t held(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}

static char *room(struct buffer *buffer, size_t count)
{
	if (buffer->start && buffer->start == buffer->end)
		buffer->start = buffer->end = 0;
	if (buffer->size - buffer->end < count && buffer->start) {
		memmove(buffer->data, buffer->data + buffer->start, held(buffer));
		buffer->end -= buffer->start;
		buffer->start = 0;
	}
	if (buffer->size - buffer->end < count) {
		buffer->size = buffer->end + count;
		buffer->data = realloc(buffer->data, buffer->size);
		if (!buffer->data)
			fail("memory");
	}
	return buffer->data + buffer->end;
}

static void put(struct buffer *buffer, const void *data, size_t count)
{
	memcpy(room(buffer, count), data, count);
	buffer->end += count;
}

static void frame(char type, uint16_t number, const void *data, uint32_t length)
{
	unsigned char head[8] = { (unsigned char)type, 0, number & 255, number >> 8, length & 255, length >> 8 & 255,
				  length >> 16 & 255, length >> 24 };

	put(&outgoing, head, sizeof(head));
	if (length)
		put(&outgoing, data, length);
}

static void word(char type, uint16_t number, int kind, uint32_t value)
{
	unsigned char data[5] = { (unsigned char)kind, value & 255, value >> 8 & 255, value >> 16 & 255, value >> 24 };

	frame(type, number, data + (type == 'C'), type == 'C' ? 4 : 5);
}

static void on_child(int number)
{
	int saved = errno;

	(void)number;
	if (write(child_pipe[1], "", 1) < 0) {
		/* full: there is a byte to wake up for already */
	}
	errno = saved;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct command *find(uint16_t number)
{
	for (int i = 0; i < COMMANDS; i++)
		if (commands[i].used && commands[i].number == number)
			return &commands[i];
	return NULL;
}

static void finish(struct command *command)
{
	if (!command->ended || command->out[0] >= 0 || command->out[1] >= 0)
		return;
	if (WIFSIGNALED(command->status))
		word('Z', command->number, 1, (uint32_t)WTERMSIG(command->status));
	else
		word('Z', command->number, 0, (uint32_t)WEXITSTATUS(command->status));
	close_fd(&command->in);
	free(command->input.data);
	memset(command, 0, sizeof(*command));
}

static int complain(const char *what)
{
	dprintf(2, "%s: %s\n", what, strerror(errno));
	return 1;
}

/* make_parents: of a path, as far as they are missing */
static void make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
}

/* copy: until the end of what is read; -1 with errno */
static int copy(int from, int to)
{
	static char data[CHUNK];
	ssize_t count;

	while ((count = read(from, data, sizeof(data))) != 0) {
		if (count < 0)
			return -1;
		for (ssize_t done = 0, some; done < count; done += some) {
			some = write(to, data + done, (size_t)(count - done));
			if (some < 0)
				return -1;
		}
	}
	return 0;
}

/* put_file: standard input becomes the file, whole or not at all */
static int put_file(const char *target, const char *mode, const char *name)
{
	char path[4096], temporary[4096 + 16];
	struct stat status;
	size_t length = strlen(target);
	int fd, is_folder = (length && target[length - 1] == '/') || (!stat(target, &status) && S_ISDIR(status.st_mode));

	if (snprintf(path, sizeof(path), is_folder ? "%s/%s" : "%s", target, name) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return complain(target);
	}
	make_parents(path);
	snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
	fd = mkstemp(temporary);
	if (fd < 0)
		return complain(path);
	if (copy(0, fd) || fchmod(fd, (mode_t)strtoul(mode, NULL, 8)) || close(fd) || rename(temporary, path)) {
		complain(path);
		unlink(temporary);
		return 1;
	}
	return 0;
}

static int get_file(const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status))
		return complain(path);
	if (S_ISDIR(status.st_mode)) {
		errno = EISDIR;
		return complain(path);
	}
	return copy(fd, 1) ? complain(path) : 0;
}

/* mount_share: a folder of the host by 9p; modprobe finds its modules where they are not built in */
static int mount_share(const char *tag, char *target, const char *how)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (strcmp(how, "rw") ? MS_RDONLY : 0);
	const char *options = "trans=virtio,version=9p2000.L,msize=262144";
	int failed;

	make_parents(target);
	if (mkdir(target, 0755) && errno != EEXIST)
		return complain(target);
	failed = mount(tag, target, "9p", flags, options);
	for (int i = 0; failed && i < 2; i++) {
		const char *names[] = { "9pnet_virtio", "9p" };
		pid_t pid = fork();

		if (!pid) {
			execlp("modprobe", "modprobe", names[i], (char *)NULL);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
	}
	if (failed && mount(tag, target, "9p", flags, options)) {
		if (errno == EINVAL || errno == ENOENT || errno == EPROTONOSUPPORT)
			errno = ENODEV; /* 9p without its transport over virtio */
		return complain(target);
	}
	return 0;
}

/* built_in: what the agent does itself, so that no program of the guest is needed; -1: none of them */
static int built_in(char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	if (!strcmp(argv[0], "acon:nothing"))
		return 0;
	if (!strcmp(argv[0], "acon:put") && argc == 4)
		return put_file(argv[1], argv[2], argv[3]);
	if (!strcmp(argv[0], "acon:get") && argc == 2)
		return get_file(argv[1]);
	if (!strcmp(argv[0], "acon:mount") && argc == 4)
		return mount_share(argv[1], argv[2], argv[3]);
	return -1;
}

/* run: become the command; what exec says goes to the parent through the pipe `failed` */
static _Noreturn void run(char **argv, char **variables, const char *folder, int fds[3], int failed)
{
	int error;

	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	for (; *variables; variables++)
		putenv(*variables);
	if (*folder && chdir(folder)) {
		error = errno;
	} else {
		if (!strncmp(argv[0], "acon:", 5)) {
			/* as by exec: the parent learns that it started, and nobody else holds its own input open */
			for (int fd = 3; fd < 16 + 4 * COMMANDS; fd++)
				close(fd);
			error = built_in(argv);
			_exit(error < 0 ? 127 : error);
		}
		execvp(argv[0], argv);
		error = errno;
	}
	if (write(failed, &error, sizeof(error)) < 0)
		_exit(125);
	_exit(127);
}

static int start_pipes(int ours[3], int theirs[3])
{
	for (int i = 0; i < 3; i++) {
		int ends[2];

		if (pipe2(ends, O_CLOEXEC))
			return -1;
		ours[i] = ends[i == 0];
		theirs[i] = ends[i != 0];
		fcntl(ours[i], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

static void start(uint16_t number, char *data, size_t length)
{
	unsigned argc, envc, texts = 0;
	char **words, *at = data + 4, *end = data + length;
	int ours[3] = { -1, -1, -1 }, theirs[3] = { -1, -1, -1 }, failed[2] = { -1, -1 }, error = 0;
	struct command *command = NULL;
	pid_t pid = -1;

	if (length < 5 || end[-1] || find(number)) {
		word('Z', number, 2, EINVAL);
		return;
	}
	argc = (unsigned char)data[0] | (unsigned)(unsigned char)data[1] << 8;
	envc = (unsigned char)data[2] | (unsigned)(unsigned char)data[3] << 8;
	words = calloc(argc + envc + 4, sizeof(*words));
	if (!words)
		fail("memory");
	/* folder, arguments, NULL, variables, NULL */
	for (; at < end && texts < argc + envc + 1; at += strlen(at) + 1, texts++)
		words[texts + (texts > argc)] = at;
	for (int i = 0; i < COMMANDS && !command; i++)
		if (!commands[i].used)
			command = &commands[i];
	if (texts != argc + envc + 1 || !argc)
		error = EINVAL;
	else if (!command)
		error = EAGAIN;
	else if (start_pipes(ours, theirs) || pipe2(failed, O_CLOEXEC) || (pid = fork()) < 0)
		error = errno;
	if (!error && !pid)
		run(words + 1, words + argc + 2, words[0], theirs, failed[1]);
	for (int i = 0; i < 3; i++)
		close_fd(&theirs[i]);
	close_fd(&failed[1]);
	if (!error && read(failed[0], &error, sizeof(error)) == sizeof(error))
		waitpid(pid, NULL, 0);
	close_fd(&failed[0]);
	free(words);
	if (error) {
		for (int i = 0; i < 3; i++)
			close_fd(&ours[i]);
		word('Z', number, 2, (uint32_t)error);
		return;
	}
	*command = (struct command){ .used = 1, .number = number, .pid = pid, .in = ours[0], .out = { ours[1], ours[2] } };
}

static _Noreturn void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static void take(char type, uint16_t number, char *data, size_t length)
{
	struct command *command = find(number);

	if (type == 'S')
		start(number, data, length);
	else if (type == 'P')
		power_off();
	else if (!command)
		return;
	else if (type == 'I' && command->in >= 0)
		put(&command->input, data, length);
	else if (type == 'I')
		word('C', number, 0, (uint32_t)length); /* it no longer reads: gone, as into a broken pipe */
	else if (type == 'E')
		command->in_ends = 1;
	else if (type == 'K' && length == 1)
		kill(-command->pid, (unsigned char)*data);
}

static void take_frames(void)
{
	while (held(&incoming) >= 8) {
		unsigned char *head = (unsigned char *)incoming.data + incoming.start;
		uint32_t length = head[4] | head[5] << 8 | head[6] << 16 | (uint32_t)head[7] << 24;

		if (length > FRAME_MAX) {
			errno = EMSGSIZE;
			fail("a frame of the host");
		}
		if (held(&incoming) < 8 + length)
			return;
		incoming.start += 8 + length;
		take((char)head[0], (uint16_t)(head[2] | head[3] << 8), (char *)head + 8, length);
	}
}

static void feed(struct command *command)
{
	ssize_t count;

	if (command->in < 0)
		return;
	count = held(&command->input) ? write(command->in, command->input.data + command->input.start, held(&command->input)) : 0;
	if (count > 0) {
		command->input.start += (size_t)count;
		word('C', command->number, 0, (uint32_t)count);
	} else if (count < 0 && errno != EAGAIN) {
		word('C', command->number, 0, (uint32_t)held(&command->input));
		command->input.start = command->input.end;
		close_fd(&command->in);
	}
	if (command->in_ends && !held(&command->input))
		close_fd(&command->in);
}

static void drain(struct command *command, int which)
{
	char data[CHUNK];
	ssize_t count = read(command->out[which], data, sizeof(data));

	if (count > 0)
		frame(which ? '2' : 'O', command->number, data, (uint32_t)count);
	else if (!count || errno != EAGAIN)
		close_fd(&command->out[which]);
}

/* reap: commands that ended. A grandchild may hold its output open: what is written until now is taken, no more. */
static void reap(void)
{
	char bytes[64];
	int status;

	while (read(child_pipe[0], bytes, sizeof(bytes)) > 0)
		;
	for (int i = 0; i < COMMANDS; i++) {
		struct command *command = &commands[i];

		if (!command->used || command->ended || waitpid(command->pid, &status, WNOHANG) != command->pid)
			continue;
		command->ended = 1;
		command->status = status;
		for (int which = 0; which < 2; which++) {
			size_t before = held(&outgoing) + 1;

			while (command->out[which] >= 0 && held(&outgoing) != before) {
				before = held(&outgoing);
				drain(command, which);
			}
			close_fd(&command->out[which]);
		}
		finish(command);
	}
}

static void add(struct pollfd *fds, int *count, int fd, short events)
{
	fds[(*count)++] = (struct pollfd){ .fd = fd, .events = events };
}

static void exchange(short events)
{
	ssize_t count;

	if (events & POLLIN) {
		count = read(port, room(&incoming, CHUNK), CHUNK);
		if (count > 0)
			incoming.end += (size_t)count;
		else if (!count)
			usleep(20000); /* the host does not listen */
		take_frames();
	}
	if (events & POLLOUT && held(&outgoing)) {
		count = write(port, outgoing.data + outgoing.start, held(&outgoing) < CHUNK ? held(&outgoing) : CHUNK);
		if (count > 0)
			outgoing.start += (size_t)count;
	}
}

static _Noreturn void serve(void)
{
	for (;;) {
		struct pollfd fds[3 + 3 * COMMANDS];
		int count = 0, full = held(&outgoing) > OUT_MAX;

		add(fds, &count, port, (short)(POLLIN | (held(&outgoing) ? POLLOUT : 0)));
		add(fds, &count, child_pipe[0], POLLIN);
		add(fds, &count, ready, POLLIN);
		for (int i = 0; i < COMMANDS; i++) {
			struct command *command = &commands[i];
			int feeds = command->used && (held(&command->input) || command->in_ends);

			add(fds, &count, feeds ? command->in : -1, POLLOUT);
			for (int which = 0; which < 2; which++)
				add(fds, &count, command->used && !full ? command->out[which] : -1, POLLIN);
		}
		if (poll(fds, (nfds_t)count, -1) < 0 && errno != EINTR)
			fail("poll");
		exchange(fds[0].revents);
		for (int i = 0; i < COMMANDS; i++) {
			struct command *command = &commands[i];
			struct pollfd *its = fds + 3 + 3 * i;

			if (command->used && its[0].revents)
				feed(command);
			for (int which = 0; which < 2; which++)
				if (command->used && its[1 + which].revents && command->out[which] == its[1 + which].fd)
					drain(command, which);
		}
		reap();
		if (fds[2].revents) {
			char byte;

			if (read(ready, &byte, 1) == 1)
				frame('R', 0, NULL, 0);
		}
	}
}

/* open_port: by the number of its device, without /dev and /sys, which /init may not have mounted yet (or ever) */
static int open_port(void)
{
	char path[300], text[64];
	struct dirent *item;
	unsigned major, minor;
	DIR *folder = opendir(SYS "/class/virtio-ports");
	int fd = -1;

	while (folder && fd < 0 && (item = readdir(folder))) {
		FILE *file;
		int ours = 0;

		snprintf(path, sizeof(path), SYS "/class/virtio-ports/%s/name", item->d_name);
		file = fopen(path, "re");
		if (file) {
			ours = fgets(text, sizeof(text), file) && !strncmp(text, PORT, strlen(PORT));
			fclose(file);
		}
		snprintf(path, sizeof(path), SYS "/class/virtio-ports/%s/dev", item->d_name);
		file = ours ? fopen(path, "re") : NULL;
		if (file) {
			if (fscanf(file, "%u:%u", &major, &minor) == 2) {
				unlink(NODE);
				if (!mknod(NODE, S_IFCHR | 0600, makedev(major, minor)))
					fd = open(NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			}
			fclose(file);
		}
	}
	if (folder)
		closedir(folder);
	return fd;
}

static int is_our_script(void)
{
	char text[256] = "";
	int fd = open("/init", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	return strstr(text, OURS) != NULL;
}

static _Noreturn void agent(void)
{
	int ours = is_our_script();

	setsid();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, on_child);
	if (pipe2(child_pipe, O_CLOEXEC | O_NONBLOCK))
		fail("pipe");
	mkdir(SYS, 0700);
	if (mount("sysfs", SYS, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		fail("sysfs");
	while ((port = open_port()) < 0)
		usleep(10000);
	umount2(SYS, MNT_DETACH);
	rmdir(SYS);
	unlink(NODE);
	frame('H', 0, "script", ours ? 6 : 0);
	serve();
}

/* announce: we are what our /init has become at its end */
static _Noreturn void announce(void)
{
	int fd = open(READY, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || write(fd, "", 1) != 1)
		fail(READY);
	for (;;)
		if (wait(NULL) < 0)
			pause();
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');
	static char next[] = NEXT, init[] = "/init";

	if (!strcmp(name ? name + 1 : argv[0], "exec-ready"))
		announce();
	if (getpid() != 1 || argc < 1)
		return 2;
	/* before the fork, so that our /init cannot be ready before there is somebody to tell; both ends: no end of file */
	if (mkfifo(READY, 0600) || (ready = open(READY, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
		fail(READY);
	if (!fork())
		agent();
	close(ready);
	argv[0] = access(next, F_OK) ? init : next;
	execv(argv[0], argv);
	fail(argv[0]);
}
