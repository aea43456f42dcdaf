/*
 * boot-report: what a boot took and left, as JSON lines; then power off.
 *
 * The kernel's log is the clock that both ends of a boot share: "Run /init" was stamped by the kernel, and a line
 * written here is stamped by the same clock. The time stamp counter is read beside it. The state of the memory is read
 * into buffers that the program has from its start, before anything else is done with it.
 *
 *   {"event":"ready", times, memory as the kernel tells it}
 *   {"event":"log","first":N,"records":[[microseconds,"text"],...]}   as many as it takes, N the first record's number
 *   {"event":"end","records":N}
 */
#define _GNU_SOURCE
#include "acon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* With a line break: the kernel shows a record to readers only once it cannot be continued. */
#define MARK "acon-nb: ready"
#define RECORDS_A_MESSAGE 512

struct log_facts {
	long long init_us;
	long long ready_us;
	char memory[256];
};

struct text {
	char data[64 << 10];
};

struct stacks {
	unsigned long areas, pages;
};

static struct text meminfo, zoneinfo, vmstat, iomem, vmalloc;

/* A file of /proc as it is now; a file that is not there is empty, one that is longer is cut. */
static void take(struct text *text, const char *path)
{
	size_t length = 0;
	ssize_t count;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && length < sizeof(text->data) - 1) {
		count = read(fd, text->data + length, sizeof(text->data) - 1 - length);
		if (count <= 0)
			break;
		length += (size_t)count;
	}
	text->data[length] = 0;
	if (fd >= 0)
		close(fd);
}

/* Records of /dev/kmsg: "priority,sequence,microseconds,flags;text"; a text of several lines has them escaped. */
static char *next_record(int fd, char *record, size_t size, unsigned long long *sequence, long long *us)
{
	for (;;) {
		ssize_t length = read(fd, record, size - 1);
		char *text;

		if (length < 0 && errno == EPIPE) /* overwritten before it was read: the next one is there */
			continue;
		if (length <= 0)
			return NULL;
		record[length] = 0;
		text = strchr(record, ';');
		if (!text || sscanf(record, "%*d,%llu,%lld", sequence, us) != 2)
			continue;
		text++;
		text[strcspn(text, "\n")] = 0;
		return text;
	}
}

static int open_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		acon_fail("/dev/kmsg");
	return fd;
}

static void read_log(struct log_facts *facts)
{
	static char record[8192];
	unsigned long long sequence;
	long long us;
	char *text;
	int fd = open_log();

	facts->init_us = facts->ready_us = -1;
	facts->memory[0] = 0;
	while ((text = next_record(fd, record, sizeof(record), &sequence, &us))) {
		if (!strncmp(text, "Run ", 4) && strstr(text, " as init process"))
			facts->init_us = us;
		else if (!strncmp(text, MARK, strlen(MARK)))
			facts->ready_us = us;
		else if (!strncmp(text, "Memory: ", 8))
			snprintf(facts->memory, sizeof(facts->memory), "%.255s", text);
	}
	close(fd);
}

static void put_log(FILE *port)
{
	static char record[8192];
	unsigned long long sequence, count = 0;
	long long us;
	char *text;
	int fd = open_log();

	while ((text = next_record(fd, record, sizeof(record), &sequence, &us))) {
		if (count % RECORDS_A_MESSAGE == 0)
			fprintf(port, "%s{\"event\":\"log\",\"first\":%llu,\"records\":[", count ? "]}\n" : "", sequence);
		fprintf(port, "%s[%lld,", count % RECORDS_A_MESSAGE ? "," : "", us);
		acon_json_string(port, text);
		fputc(']', port);
		count++;
	}
	close(fd);
	fprintf(port, "%s{\"event\":\"end\",\"records\":%llu}\n", count ? "]}\n" : "", count);
}

/* "MemTotal:   497868 kB" and "nr_free_pages 1234", names and numbers. */
static void put_numbers(FILE *port, const struct text *text)
{
	const char *line = text->data, *comma = "";
	unsigned long long value;
	char name[128];

	fputc('{', port);
	while (*line) {
		if (sscanf(line, "%127[^: \n]%*[: ]%llu", name, &value) == 2) {
			fputs(comma, port);
			acon_json_string(port, name);
			fprintf(port, ":%llu", value);
			comma = ",";
		}
		line += strcspn(line, "\n");
		line += *line == '\n';
	}
	fputc('}', port);
}

/* Kernel stacks lie in vmalloc areas of four pages and a guard page: the kernel counts them in both. */
static struct stacks find_stacks(const struct text *text)
{
	struct stacks found = { 0, 0 };
	const char *line = text->data;
	unsigned long long size;

	while (*line) {
		size_t length = strcspn(line, "\n");
		const char *pages = memmem(line, length, " pages=", 7);

		if (sscanf(line, "%*s %llu", &size) == 1 && pages && size == 5 * 4096 && strtoul(pages + 7, NULL, 10) == 4)
			found.areas++;
		if (pages)
			found.pages += strtoul(pages + 7, NULL, 10);
		line += length;
		line += *line == '\n';
	}
	return found;
}

static void put_text(FILE *port, const char *name, const char *text)
{
	fprintf(port, ",\"%s\":", name);
	acon_json_string(port, text);
}

static void put_memory(FILE *port)
{
	struct stacks stacks = find_stacks(&vmalloc);

	fprintf(port, ",\"page_bytes\":%ld,\"meminfo_kib\":", sysconf(_SC_PAGESIZE));
	put_numbers(port, &meminfo);
	fprintf(port, ",\"vmstat\":");
	put_numbers(port, &vmstat);
	put_text(port, "zoneinfo", zoneinfo.data);
	put_text(port, "iomem", iomem.data);
	fprintf(port, ",\"vmalloc\":{\"stack_areas\":%lu,\"pages\":%lu}", stacks.areas, stacks.pages);
}

int main(void)
{
	FILE *port = acon_port();
	uint64_t tsc, now_ns;
	struct log_facts facts;
	struct utsname names;
	static struct text cmdline;
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
	take(&meminfo, "/proc/meminfo");
	take(&zoneinfo, "/proc/zoneinfo");
	take(&vmstat, "/proc/vmstat");
	take(&iomem, "/proc/iomem");
	take(&vmalloc, "/proc/vmallocinfo");
	take(&cmdline, "/proc/cmdline");
	cmdline.data[strcspn(cmdline.data, "\n")] = 0;
	read_log(&facts);
	uname(&names);
	fprintf(port, "{\"event\":\"ready\",\"init_us\":%lld,\"ready_us\":%lld", facts.init_us, facts.ready_us);
	fprintf(port, ",\"tsc\":%llu,\"monotonic_ns\":%llu", (unsigned long long)tsc, (unsigned long long)now_ns);
	put_text(port, "memory_line", facts.memory);
	put_text(port, "release", names.release);
	put_text(port, "cmdline", cmdline.data);
	put_memory(port);
	/* The host takes the time of arrival of what this write ends. */
	fprintf(port, ",\"sent_ns\":%llu}\n", (unsigned long long)acon_now_ns());
	fflush(port);
	put_log(port);
	if (fclose(port))
		acon_fail("results port");
	acon_power_off();
}
