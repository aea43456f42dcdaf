/*
 * boot-report: what a boot took and left, as one JSON line; then power off.
 *
 * The kernel's log is the clock that both ends of a boot share: "Run /init" was stamped by the kernel, and a line
 * written here is stamped by the same clock. The time stamp counter is read beside it.
 */
#define _GNU_SOURCE
#include "acon.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* With a line break: the kernel shows a record to readers only once it cannot be continued. */
#define MARK "acon-nb: ready"

struct log_facts {
	long long init_us;
	long long ready_us;
	char memory[256];
};

/* Records of /dev/kmsg: "priority,sequence,microseconds,flags;text". */
static void read_log(struct log_facts *facts)
{
	char record[8192];
	ssize_t length;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	facts->init_us = facts->ready_us = -1;
	facts->memory[0] = 0;
	if (fd < 0)
		acon_fail("/dev/kmsg");
	while ((length = read(fd, record, sizeof(record) - 1)) > 0) {
		long long us;
		char *text;

		record[length] = 0;
		text = strchr(record, ';');
		if (!text || sscanf(record, "%*d,%*d,%lld", &us) != 1)
			continue;
		text++;
		if (strchr(text, '\n'))
			*strchr(text, '\n') = 0;
		if (!strncmp(text, "Run ", 4) && strstr(text, " as init process"))
			facts->init_us = us;
		else if (!strncmp(text, MARK, strlen(MARK)))
			facts->ready_us = us;
		else if (!strncmp(text, "Memory: ", 8))
			snprintf(facts->memory, sizeof(facts->memory), "%.255s", text);
	}
	close(fd);
}

int main(void)
{
	FILE *port = acon_port();
	uint64_t tsc, now_ns;
	struct log_facts facts;
	struct utsname names;
	char cmdline[2100] = "";
	FILE *file;
	int fd;

	if (!port)
		acon_power_off();
	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		acon_fail("/dev/kmsg");
	tsc = acon_tsc();
	now_ns = acon_now_ns();
	if (write(fd, "<6>" MARK "\n", strlen("<6>" MARK "\n")) < 0)
		acon_fail("/dev/kmsg");
	close(fd);
	read_log(&facts);
	uname(&names);
	file = fopen("/proc/cmdline", "r");
	if (file) {
		if (fgets(cmdline, sizeof(cmdline), file))
			cmdline[strcspn(cmdline, "\n")] = 0;
		fclose(file);
	}
	fprintf(port, "{\"event\":\"ready\",\"init_us\":%lld,\"ready_us\":%lld", facts.init_us, facts.ready_us);
	fprintf(port, ",\"tsc\":%llu,\"monotonic_ns\":%llu", (unsigned long long)tsc, (unsigned long long)now_ns);
	fprintf(port, ",\"sent_ns\":%llu,\"memory_line\":", (unsigned long long)acon_now_ns());
	acon_json_string(port, facts.memory);
	fprintf(port, ",\"release\":");
	acon_json_string(port, names.release);
	fprintf(port, ",\"cmdline\":");
	acon_json_string(port, cmdline);
	fprintf(port, ",\"meminfo_kib\":");
	acon_json_table(port, "/proc/meminfo");
	fprintf(port, "}\n");
	if (fclose(port))
		acon_fail("results port");
	acon_power_off();
}
