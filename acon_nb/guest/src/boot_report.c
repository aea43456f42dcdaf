/*
 * boot-report: what a boot took and left, as JSON lines on the results port. One program with two names:
 *
 * /acon/init         the kernel starts it in place of the user's /init (rdinit=); it reports, removes what it made, and
 *                    becomes that program: the same process, arguments, environment and console
 * /acon/boot-report  our /init starts it at its end (INIT=); it reports and powers off
 *
 *   {"event":"boot","at":"init" or "end","tsc":N,"monotonic_ns":N, ..., "sent_ns":N}
 *   {"event":"log","first":N,"records":[[microseconds,"text"],...]}   as many as it takes, N the first record's number
 *   {"event":"end","records":N}
 *   {"event":"handover","monotonic_ns":N,"tsc":N}                     the last thing before the user's program
 *   {"event":"exec-failure","program":"/init"}                        it cannot be executed; the kernel panics
 *
 * The kernel's log is the clock that both ends of a boot share: "Run ... as init process" was stamped by the kernel, and
 * a line written here is stamped by the same clock, with the time stamp counter read beside it. What the kernel says of
 * its memory is taken before anything else is done, into buffers that the program has from its start. The host does
 * the reading: texts are sent as they are.
 *
 * It is built without a C library: the kernel unpacks it before /init, and a few pages cost next to nothing.
 */
#define _GNU_SOURCE
#include "mark.h"
#include "start.h"

#include <fcntl.h>
#include <linux/reboot.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>

#define FOLDER "/acon"
#define WRAPPER FOLDER "/init"
#define NEXT FOLDER "/next" /* a link to the user's program, where that is not /init */
#define KMSG FOLDER "/kmsg"
#define PORT FOLDER "/port"
#define PROC FOLDER "/proc"
#define PORTS 4
#define RECORDS_A_MESSAGE 512
#define TRIES 2000 /* of a millisecond each */
#define NO_ENTRY (-2)
#define OVERWRITTEN (-32) /* EPIPE of /dev/kmsg: the next record is there */

struct text {
	char data[64 << 10];
};

static struct text meminfo, zoneinfo, vmstat, iomem, vmalloc, cmdline, devices;
static char out[32 << 10];
static size_t out_bytes;
static int port = -1;

static long call(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static long open_file(const char *path, int flags)
{
	return call(SYS_open, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

static void close_file(long fd)
{
	call(SYS_close, fd, 0, 0, 0, 0);
}

static _Noreturn void leave(void)
{
	for (;;)
		call(SYS_exit_group, 1, 0, 0, 0, 0);
}

static uint64_t tsc_now(void)
{
	return __builtin_ia32_rdtsc();
}

static uint64_t now_ns(void)
{
	struct timespec now = { 0, 0 };

	call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t length_of(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

static int starts(const char *text, const char *with)
{
	while (*with && *text == *with) {
		text++;
		with++;
	}
	return !*with;
}

static void join(char *path, size_t size, const char *a, const char *b, const char *c)
{
	const char *parts[] = { a, b, c };
	size_t length = 0;

	for (int i = 0; i < 3; i++)
		for (const char *from = parts[i]; *from && length < size - 1; from++)
			path[length++] = *from;
	path[length] = 0;
}

static unsigned long long number_at(const char **text)
{
	unsigned long long value = 0;

	while (**text >= '0' && **text <= '9')
		value = 10 * value + (unsigned long long)(*(*text)++ - '0');
	return value;
}

/* A file as it is now; a file that is not there is empty, one that is longer is cut. */
static void take_up_to(char *data, size_t size, const char *path)
{
	long fd = open_file(path, O_RDONLY), count = 1;
	size_t length = 0;

	while (fd >= 0 && count > 0 && length < size - 1) {
		count = call(SYS_read, fd, (long)(data + length), (long)(size - 1 - length), 0, 0);
		length += count > 0 ? (size_t)count : 0;
	}
	data[length] = 0;
	if (fd >= 0)
		close_file(fd);
}

static void take(struct text *text, const char *path)
{
	take_up_to(text->data, sizeof(text->data), path);
}

/* For people, where there is no port: on the console, or in the kernel's log if there is none. */
static void say(const char *text, long kmsg)
{
	if (call(SYS_write, 2, (long)text, (long)length_of(text), 0, 0) < 0 && kmsg >= 0) {
		char line[256];

		join(line, sizeof(line), "<3>", text, "");
		call(SYS_write, kmsg, (long)line, (long)length_of(line), 0, 0);
	}
}

static void flush(void)
{
	size_t done = 0;

	while (port >= 0 && done < out_bytes) {
		long count = call(SYS_write, port, (long)(out + done), (long)(out_bytes - done), 0, 0);

		if (count <= 0)
			break;
		done += (size_t)count;
	}
	out_bytes = 0;
}

static void put_char(char c)
{
	if (out_bytes == sizeof(out))
		flush();
	out[out_bytes++] = c;
}

static void put(const char *text)
{
	while (*text)
		put_char(*text++);
}

static void put_number(unsigned long long value)
{
	char digits[24];
	int count = 0;

	do {
		digits[count++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (count)
		put_char(digits[--count]);
}

static void put_string(const char *text)
{
	static const char hex[] = "0123456789abcdef";

	put_char('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c >= 0x7f) {
			put("\\u00");
			put_char(hex[c >> 4]);
			put_char(hex[c & 15]);
			continue;
		}
		if (c == '"' || c == '\\')
			put_char('\\');
		put_char((char)c);
	}
	put_char('"');
}

static void put_value(const char *name, unsigned long long value)
{
	put(",\"");
	put(name);
	put("\":");
	put_number(value);
}

static void put_text(const char *name, const char *text)
{
	put(",\"");
	put(name);
	put("\":");
	put_string(text);
}

/*
 * The device number of a virtio-serial device, as /proc/devices has it ("248 virtio-portsdev"), or 0. The results port is
 * the first that opens: a port that is a console does not. sysfs has its name, but to mount and to forget it costs more.
 */
static unsigned long long port_major(void)
{
	const char *line = devices.data;

	while (*line) {
		unsigned long long number;

		while (*line == ' ')
			line++;
		number = number_at(&line);
		if (number && starts(line, " virtio-portsdev"))
			return number;
		while (*line && *line++ != '\n')
			;
	}
	return 0;
}

/* The ports of a device come some time after it; without a device there is nothing to wait for. */
static void take_port(void)
{
	unsigned long long number = port_major();
	struct timespec pause = { 0, 1000000 };

	for (int tries = 0; number && port < 0 && tries < TRIES; tries++) {
		for (unsigned int minor = 0; port < 0 && minor < PORTS; minor++) {
			call(SYS_mknod, (long)PORT, S_IFCHR | 0600, (long)(number << 8 | minor), 0, 0);
			port = (int)open_file(PORT, O_WRONLY);
			call(SYS_unlink, (long)PORT, 0, 0, 0, 0);
		}
		if (port < 0)
			call(SYS_nanosleep, (long)&pause, 0, 0, 0, 0);
	}
}

static void take_memory(void)
{
	call(SYS_mkdir, (long)PROC, 0700, 0, 0, 0);
	call(SYS_mount, (long)"proc", (long)PROC, (long)"proc", 0, 0);
	take(&meminfo, PROC "/meminfo");
	take(&zoneinfo, PROC "/zoneinfo");
	take(&vmstat, PROC "/vmstat");
	take(&iomem, PROC "/iomem");
	take(&vmalloc, PROC "/vmallocinfo");
	take(&devices, PROC "/devices");
	take(&cmdline, PROC "/cmdline");
	for (char *end = cmdline.data; *end; end++)
		if (*end == '\n')
			*end = 0;
	call(SYS_umount2, (long)PROC, MNT_DETACH, 0, 0, 0);
	call(SYS_rmdir, (long)PROC, 0, 0, 0, 0);
}

static void put_boot(int at_init, uint64_t tsc, uint64_t monotonic_ns)
{
	static struct utsname names;

	call(SYS_uname, (long)&names, 0, 0, 0, 0);
	put("{\"event\":\"boot\",\"at\":");
	put_string(at_init ? "init" : "end");
	put_value("tsc", tsc);
	put_value("monotonic_ns", monotonic_ns);
	put_value("page_bytes", 4096);
	put_text("release", names.release);
	put_text("cmdline", cmdline.data);
	put_text("meminfo", meminfo.data);
	put_text("zoneinfo", zoneinfo.data);
	put_text("vmstat", vmstat.data);
	put_text("iomem", iomem.data);
	put_text("vmallocinfo", vmalloc.data);
	/* The host takes the time of arrival of what this write ends. */
	flush();
	put_value("sent_ns", now_ns());
	put("}\n");
	flush();
}

/* Records of /dev/kmsg: "priority,sequence,microseconds,flags;text"; a text of several lines has them escaped. */
static void put_log(long kmsg)
{
	static char record[8192];
	unsigned long long sequence, us, count = 0;
	long length;

	while ((length = call(SYS_read, kmsg, (long)record, sizeof(record) - 1, 0, 0)) > 0 || length == OVERWRITTEN) {
		const char *at = record;
		char *text;

		record[length > 0 ? length : 0] = 0;
		number_at(&at);
		at += *at == ',';
		sequence = number_at(&at);
		at += *at == ',';
		us = number_at(&at);
		while (*at && *at != ';')
			at++;
		if (!*at)
			continue;
		text = record + (at - record) + 1;
		for (char *end = text; *end; end++)
			if (*end == '\n')
				*end = 0;
		if (count % RECORDS_A_MESSAGE == 0) {
			put(count ? "]}\n{\"event\":\"log\"" : "{\"event\":\"log\"");
			put_value("first", sequence);
			put(",\"records\":[");
		}
		put(count % RECORDS_A_MESSAGE ? ",[" : "[");
		put_number(us);
		put_char(',');
		put_string(text);
		put_char(']');
		count++;
	}
	put(count ? "]}\n" : "");
	put("{\"event\":\"end\"");
	put_value("records", count);
	put("}\n");
	flush();
}

/* Become the user's program, as the kernel would have started it. */
static _Noreturn void hand_over(const char *program, char **argv, char **environment, long kmsg)
{
	long error = call(SYS_access, (long)program, 1, 0, 0, 0);

	argv[0] = (char *)program;
	if (!error && port >= 0) {
		put("{\"event\":\"handover\"");
		put_value("monotonic_ns", now_ns());
		put_value("tsc", tsc_now());
		put("}\n");
		flush();
	} else if (!error) {
		say("acon: /init is reached; there is no virtio port for the report\n", kmsg);
	}
	if (!error)
		error = call(SYS_execve, (long)program, (long)argv, (long)environment, 0, 0);
	say("acon: Requested init failed: ", kmsg);
	say(program, kmsg);
	say(error == NO_ENTRY ? " or its interpreter does not exist\n" : " cannot be executed\n", kmsg);
	put("{\"event\":\"exec-failure\",\"program\":");
	put_string(program);
	put("}\n");
	flush();
	leave();
}

static _Noreturn void power_off(void)
{
	call(SYS_sync, 0, 0, 0, 0, 0);
	call(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0, 0);
	leave();
}

/* Remove what the second archive brought, and the time at which the root folder was changed by that. */
static void clean(const struct stat *root)
{
	struct timespec times[2] = { root->st_atim, root->st_mtim };

	call(SYS_unlink, (long)WRAPPER, 0, 0, 0, 0);
	call(SYS_unlink, (long)NEXT, 0, 0, 0, 0);
	call(SYS_rmdir, (long)FOLDER, 0, 0, 0, 0);
	call(SYS_utimensat, AT_FDCWD, (long)"/", (long)times, 0, 0);
}

/* `stack` is as the kernel left it: argc, argv, NULL, environment, NULL. */
__attribute__((used)) static _Noreturn void begin(long *stack)
{
	static char program[1024];
	static struct stat root;
	char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1;
	int at_init = starts(argv[0], WRAPPER);
	const char *mark = at_init ? "<7>acon-nb: init\n" : "<6>acon-nb: ready\n";
	uint64_t tsc, monotonic_ns;
	long kmsg;

	if (at_init)
		acon_mark(ACON_MARK_INIT);
	call(SYS_stat, (long)"/", (long)&root, 0, 0, 0);
	call(SYS_mknod, (long)KMSG, S_IFCHR | 0600, 1 << 8 | 11, 0, 0);
	kmsg = open_file(KMSG, O_RDWR | O_NONBLOCK);
	call(SYS_unlink, (long)KMSG, 0, 0, 0, 0);
	tsc = at_init ? tsc_now() : acon_mark(ACON_MARK_READY);
	monotonic_ns = now_ns();
	/* With a line break: the kernel shows a record to readers only once it cannot be continued. */
	if (kmsg >= 0)
		call(SYS_write, kmsg, (long)mark, (long)length_of(mark), 0, 0);
	take_memory();
	take_port();
	if (at_init) {
		long length = call(SYS_readlink, (long)NEXT, (long)program, sizeof(program) - 1, 0, 0);

		if (length < 0)
			join(program, sizeof(program), "/init", "", "");
		clean(&root);
	}
	if (port >= 0) {
		put_boot(at_init, tsc, monotonic_ns);
		put_log(kmsg);
	}
	if (at_init)
		hand_over(program, argv, environment, kmsg);
	if (port < 0)
		say("acon: no virtio-serial port\n", kmsg);
	power_off();
}
