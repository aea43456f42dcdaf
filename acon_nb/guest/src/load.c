#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct parameters parameters;
struct shared *shared;

const char *parameter(const char *name, const char *otherwise)
{
	char whole[64];
	const char *value;

	snprintf(whole, sizeof(whole), "cell_%s", name);
	value = getenv(whole);
	return value ? value : otherwise;
}

int program_workload(void)
{
	return !strcmp(parameters.workload, "program");
}

void lock_up(int what)
{
	if (mlockall(what))
		fprintf(stderr, "swap-load: memory is not locked: %s\n", strerror(errno));
}

void put_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "swap-load: %s does not take %s\n", path, text);
	if (fd >= 0)
		close(fd);
}

void give_up(const char *what)
{
	snprintf(shared->failed, sizeof(shared->failed), "%s: %s", what, strerror(errno));
	_exit(3);
}
