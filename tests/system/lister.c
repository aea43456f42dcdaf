/*
 * The init of a guest that lists its root: a line for each name, on the disk /dev/vda, and "end COUNT" after the last.
 *   MODE UID GID MTIME MAJOR MINOR INODE SIZE CRC NAME TARGET
 * NAME and TARGET are in hexadecimal, so that any byte may occur; CRC is the CRC-32 of the content.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define OWN ".lister"

static FILE *out;
static long count;
static uint32_t table[256];
static char buffer[1 << 16];

static void fail(const char *what)
{
	perror(what);
	reboot(RB_POWER_OFF);
	exit(1);
}

static uint32_t checksum(const char *name)
{
	uint32_t crc = 0xffffffff;
	int fd = open(name, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		fail("open");
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		for (ssize_t i = 0; i < got; i++)
			crc = table[(crc ^ (unsigned char)buffer[i]) & 255] ^ crc >> 8;
	close(fd);
	return ~crc;
}

static void put_hex(const char *text)
{
	fputc(' ', out);
	for (; *text; text++)
		fprintf(out, "%02x", (unsigned char)*text);
}

/* List the folder that is the working directory; `path` is its name, with a slash at the end, or "". */
static void list(const char *path)
{
	DIR *folder = opendir(".");
	struct dirent *item;

	if (!folder)
		fail("opendir");
	while ((item = readdir(folder))) {
		char name[PATH_MAX], target[PATH_MAX] = "";
		struct stat info;

		if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, "..") || (!*path && !strcmp(item->d_name, OWN)))
			continue;
		if (lstat(item->d_name, &info))
			fail("lstat");
		if (S_ISLNK(info.st_mode) && readlink(item->d_name, target, sizeof(target) - 1) < 0)
			fail("readlink");
		snprintf(name, sizeof(name), "%s%s", path, item->d_name);
		fprintf(out, "%o %u %u %lld %u %u %llu %lld %u", info.st_mode, info.st_uid, info.st_gid,
			(long long)info.st_mtime, major(info.st_rdev), minor(info.st_rdev),
			(unsigned long long)info.st_ino, (long long)info.st_size,
			S_ISREG(info.st_mode) ? checksum(item->d_name) : 0);
		put_hex(name);
		put_hex(target);
		fputc('\n', out);
		count++;
		if (S_ISDIR(info.st_mode)) {
			if (chdir(item->d_name))
				fail("chdir");
			strcat(name, "/");
			list(name);
			if (chdir(".."))
				fail("chdir ..");
		}
	}
	closedir(folder);
}

int main(void)
{
	for (uint32_t number = 0; number < 256; number++) {
		uint32_t crc = number;

		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? 0xedb88320 ^ crc >> 1 : crc >> 1;
		table[number] = crc;
	}
	if (chdir("/") || mkdir(OWN, 0700) || mount("devtmpfs", OWN, "devtmpfs", 0, ""))
		fail("mount");
	for (int tries = 0; !(out = fopen(OWN "/vda", "w")); tries++) {
		if (tries > 5000)
			fail(OWN "/vda");
		usleep(1000);
	}
	list("");
	fprintf(out, "end %ld\n", count);
	if (fflush(out) || fsync(fileno(out)) || fclose(out))
		fail("write");
	reboot(RB_POWER_OFF);
	return 1;
}
