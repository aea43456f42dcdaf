#define _GNU_SOURCE
#include "image_root.h"

#include "acon.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPEC "/acon/cell/run"
#define SPEC_BYTES (256 << 10)

static void take(struct image_spec *spec, const char *name, char *value)
{
	if (!strcmp(name, "arg") && spec->argc < IMAGE_WORDS - 1)
		spec->argv[spec->argc++] = value;
	else if (!strcmp(name, "driver") && spec->drivers < IMAGE_WORDS - 1)
		spec->driver[spec->drivers++] = value;
	else if (!strcmp(name, "env") && spec->envs < IMAGE_WORDS - 1)
		spec->env[spec->envs++] = value;
	else if (!strcmp(name, "group") && spec->group_count < 64)
		spec->groups[spec->group_count++] = (gid_t)strtoul(value, NULL, 10);
	else if (!strcmp(name, "cwd"))
		spec->cwd = value;
	else if (!strcmp(name, "ready"))
		spec->ready = value;
	else if (!strcmp(name, "uid"))
		spec->uid = (uid_t)strtoul(value, NULL, 10);
	else if (!strcmp(name, "gid"))
		spec->gid = (gid_t)strtoul(value, NULL, 10);
	else if (!strcmp(name, "for_ns"))
		spec->for_ns = strtoull(value, NULL, 10);
	else if (!strcmp(name, "limit_ns"))
		spec->limit_ns = strtoull(value, NULL, 10);
	else if (!strcmp(name, "window_ns"))
		spec->window_ns = strtoull(value, NULL, 10);
	else if (!strcmp(name, "sample_pages"))
		spec->sample_pages = strtoull(value, NULL, 10);
	else
		fprintf(stderr, "acon: %s of " SPEC " is not known, or one too many\n", name);
}

void spec_read(struct image_spec *spec)
{
	static char text[SPEC_BYTES + 1];
	int fd = open(SPEC, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, SPEC_BYTES);
	char *item;

	if (length <= 0)
		acon_fail(SPEC);
	close(fd);
	memset(spec, 0, sizeof(*spec));
	spec->cwd = "/";
	spec->env[spec->envs++] = "ACON_REPORT_FD=3";
	for (item = text; item < text + length; item += strlen(item) + 1) {
		char *value = strchr(item, '=');

		if (!value)
			continue;
		*value = 0;
		take(spec, item, value + 1);
		item = value + 1;
	}
}

long long image_number(const char *path, const char *word)
{
	FILE *file = fopen(path, "r");
	char line[256], name[128];
	long long value, found = -1;

	while (file && found < 0 && fgets(line, sizeof(line), file))
		if (!word ? sscanf(line, "%lld", &value) == 1
			  : sscanf(line, "%127[^: ]%*[: ]%lld", name, &value) == 2 && !strcmp(name, word))
			found = value;
	if (file)
		fclose(file);
	return found;
}

int image_processes(const char *group, pid_t *pids, int most)
{
	char path[128];
	FILE *file;
	int count = 0;

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	file = fopen(path, "r");
	while (file && count < most && fscanf(file, "%d", &pids[count]) == 1)
		count++;
	if (file)
		fclose(file);
	return count;
}

int image_shared_memory(const char *path)
{
	size_t length = strlen(path);

	return !strncmp(path, "/dev/zero", 9) || !strncmp(path, "/memfd:", 7) || !strncmp(path, "/SYSV", 5) ||
	       (length > 10 && !strcmp(path + length - 10, " (deleted)"));
}

static void attach(const char *what, const char *where, const char *type, unsigned long flags, const char *data)
{
	mkdir(where, 0755);
	if (mount(what, where, type, flags, data))
		fprintf(stderr, "acon: %s: %s\n", where, strerror(errno));
}

void root_prepare(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	pid_t child;

	if (fd >= 0) {
		ioctl(fd, SIOCSIFFLAGS, &request);
		close(fd);
	}
	child = fork();
	if (child) {
		waitpid(child, NULL, 0);
		return;
	}
	if (chroot(IMAGE_ROOT) || chdir("/")) /* so that no link of the image leads out of it */
		acon_fail(IMAGE_ROOT);
	attach("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	attach("sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	attach("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
	attach("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666");
	attach("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=100%");
	_exit(0);
}

void root_enter(const struct image_spec *spec, char *const *argv, const char **step)
{
	*step = "the root " IMAGE_ROOT;
	if (chroot(IMAGE_ROOT) || chdir("/"))
		return;
	*step = "the folder to start in";
	if (chdir(spec->cwd))
		return;
	*step = "the user";
	if (setgroups((size_t)spec->group_count, spec->groups) || setgid(spec->gid) || setuid(spec->uid))
		return;
	*step = "the command";
	environ = (char **)spec->env;
	execvp(argv[0], argv);
}
