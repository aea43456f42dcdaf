#define _GNU_SOURCE
#include "acon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define PORT_NAME "acon.results"
#define PORTS "/sys/class/virtio-ports"

uint64_t acon_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t acon_tsc(void)
{
	return __rdtsc();
}

static int find_port(char *path, size_t size)
{
	DIR *folder = opendir(PORTS);
	struct dirent *item;
	int found = 0;

	if (!folder)
		return 0;
	while (!found && (item = readdir(folder))) {
		char name_path[sizeof(PORTS) + 300], name[64] = "";
		FILE *file;

		if (item->d_name[0] == '.')
			continue;
		snprintf(name_path, sizeof(name_path), PORTS "/%s/name", item->d_name);
		file = fopen(name_path, "r");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strncmp(name, PORT_NAME, strlen(PORT_NAME))) {
			snprintf(path, size, "/dev/%s", item->d_name);
			found = 1;
		}
		fclose(file);
	}
	closedir(folder);
	return found;
}

FILE *acon_port(void)
{
	char path[300];
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		if (find_port(path, sizeof(path))) {
			int fd = open(path, O_WRONLY | O_CLOEXEC);

			if (fd >= 0)
				return fdopen(fd, "w");
		}
		usleep(1000);
	}
	fprintf(stderr, "acon: no virtio-serial port named " PORT_NAME "\n");
	return NULL;
}

void acon_json_string(FILE *out, const char *text)
{
	acon_json_bytes(out, text, strlen(text));
}

void acon_json_bytes(FILE *out, const char *bytes, size_t count)
{
	size_t i;

	fputc('"', out);
	for (i = 0; i < count; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

void acon_json_table(FILE *out, const char *path)
{
	FILE *file = fopen(path, "r");
	char line[256], name[128];
	unsigned long long value;
	const char *comma = "";

	fputc('{', out);
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%127[^: ]%*[: ]%llu", name, &value) != 2)
			continue;
		fputs(comma, out);
		acon_json_string(out, name);
		fprintf(out, ":%llu", value);
		comma = ",";
	}
	fputc('}', out);
	if (file)
		fclose(file);
}

_Noreturn void acon_power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	perror("acon: power off");
	exit(1);
}

_Noreturn void acon_fail(const char *what)
{
	fprintf(stderr, "acon: %s: %s\n", what, strerror(errno));
	acon_power_off();
}
