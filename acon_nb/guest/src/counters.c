#define _GNU_SOURCE
#include "counters.h"

#include "acon.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static char kswapd[64], disk_stat[64];
static int watches;

static int read_text(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "r");
	size_t length;

	text[0] = 0;
	if (!file)
		return 0;
	length = fread(text, 1, size - 1, file);
	text[length] = 0;
	fclose(file);
	return length > 0;
}

long long counters_number(const char *path)
{
	char text[64];

	return read_text(path, text, sizeof(text)) ? atoll(text) : -1;
}

void counters_start(const char *disk)
{
	DIR *folder = opendir("/proc");
	struct dirent *item;
	char path[300], name[64];

	snprintf(disk_stat, sizeof(disk_stat), "/sys/block/%s/stat", disk);
	while (folder && (item = readdir(folder))) {
		if (item->d_name[0] < '1' || item->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", item->d_name);
		if (read_text(path, name, sizeof(name)) && !strncmp(name, "kswapd0", 7))
			snprintf(kswapd, sizeof(kswapd), "/proc/%.20s/schedstat", item->d_name);
	}
	if (folder)
		closedir(folder);
}

static void put_disk(FILE *out)
{
	char text[512];
	unsigned long long reads, writes;

	/* reads, merged, sectors, ms, writes, merged, sectors, ...: Documentation/block/stat.rst */
	if (read_text(disk_stat, text, sizeof(text)) &&
	    sscanf(text, "%*u %*u %llu %*u %*u %*u %llu", &reads, &writes) == 2)
		fprintf(out, ",\"disk_read_sectors\":%llu,\"disk_written_sectors\":%llu", reads, writes);
}

static void put_pressure(FILE *out)
{
	char text[512], *some, *full;

	if (!read_text("/proc/pressure/memory", text, sizeof(text)))
		return;
	some = strstr(text, "total=");
	full = some ? strstr(some + 1, "total=") : NULL;
	if (full)
		fprintf(out, ",\"psi_some_us\":%llu,\"psi_full_us\":%llu", strtoull(some + 6, NULL, 10),
			strtoull(full + 6, NULL, 10));
}

static void put_line(FILE *out, const char *name, const char *path)
{
	char text[512];

	if (!read_text(path, text, sizeof(text)))
		return;
	text[strcspn(text, "\n")] = 0;
	fprintf(out, ",\"%s\":", name);
	acon_json_string(out, text);
}

static void put_schedule(FILE *out)
{
	long long ns = kswapd[0] ? counters_number(kswapd) : -1;

	if (ns >= 0)
		fprintf(out, ",\"kswapd_cpu_ns\":%lld", ns);
}

static void put_zswap(FILE *out)
{
	static const char *const names[] = { "pool_total_size", "stored_pages", "written_back_pages",
					     "pool_limit_hit", "reject_compress_poor", "reject_compress_fail",
					     "reject_alloc_fail", "reject_reclaim_fail", "reject_kmemcache_fail",
					     "decompress_fail", NULL };
	const char *comma = "";
	char path[128];
	int i;

	fprintf(out, ",\"zswap\":{");
	for (i = 0; names[i]; i++) {
		long long value;

		snprintf(path, sizeof(path), "/sys/kernel/debug/zswap/%s", names[i]);
		value = counters_number(path);
		if (value < 0)
			continue;
		fprintf(out, "%s\"%s\":%lld", comma, names[i], value);
		comma = ",";
	}
	fputc('}', out);
}

/* The counters of each size of huge pages, in bytes: Documentation/admin-guide/mm/transhuge.rst */
static void put_huge_pages(FILE *out)
{
	static const char folder[] = "/sys/kernel/mm/transparent_hugepage";
	const char *comma = "";
	int kib;

	fprintf(out, ",\"huge_pages\":{");
	for (kib = 8; kib <= 2048; kib *= 2) {
		const char *inner = "";
		struct dirent *item;
		char path[400];
		DIR *stats;

		snprintf(path, sizeof(path), "%s/hugepages-%dkB/stats", folder, kib);
		stats = opendir(path);
		if (!stats)
			continue;
		fprintf(out, "%s\"%d\":{", comma, kib);
		comma = ",";
		while ((item = readdir(stats))) {
			long long value;

			if (item->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/hugepages-%dkB/stats/%.200s", folder, kib, item->d_name);
			value = counters_number(path);
			if (value < 0)
				continue;
			fprintf(out, "%s\"%s\":%lld", inner, item->d_name, value);
			inner = ",";
		}
		closedir(stats);
		fputc('}', out);
	}
	fputc('}', out);
	put_line(out, "damon_reclaimed", "/sys/module/damon_reclaim/parameters/bytes_reclaimed_regions");
}

void counters_watch(int all)
{
	watches = all;
}

void counters_all(FILE *out)
{
	char text[256];
	unsigned long long user, nice, system, idle, wait, irq, softirq;

	fprintf(out, ",\"vmstat\":");
	acon_json_table(out, "/proc/vmstat");
	fprintf(out, ",\"meminfo_kib\":");
	acon_json_table(out, "/proc/meminfo");
	put_zswap(out);
	if (watches)
		put_huge_pages(out);
	put_line(out, "zram_mm_stat", "/sys/block/zram0/mm_stat");
	put_line(out, "zram_io_stat", "/sys/block/zram0/io_stat");
	put_line(out, "zram_bd_stat", "/sys/block/zram0/bd_stat");
	put_disk(out);
	put_pressure(out);
	put_schedule(out);
	/* in units of USER_HZ, 10 ms: proc(5) */
	if (read_text("/proc/stat", text, sizeof(text)) &&
	    sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq, &softirq) == 7)
		fprintf(out, ",\"cpu_ticks\":{\"user\":%llu,\"system\":%llu,\"idle\":%llu,\"iowait\":%llu}", user + nice,
			system + irq + softirq, idle, wait);
}

static void put_table_part(FILE *out, const char *path, const char *const *names)
{
	FILE *file = fopen(path, "r");
	char line[256], name[128];
	unsigned long long value;
	int i;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%127[^: ]%*[: ]%llu", name, &value) != 2)
			continue;
		for (i = 0; names[i]; i++)
			if (!strcmp(names[i], name))
				fprintf(out, ",\"%s\":%llu", name, value);
	}
	if (file)
		fclose(file);
}

void counters_sample(FILE *out)
{
	static const char *const memory[] = { "MemAvailable", "MemFree", "SwapTotal", "SwapFree", "Zswap", "Zswapped", NULL };
	static const char *const events[] = { "pgmajfault", "pswpin", "pswpout", "zswpin", "zswpout", "zswpwb", NULL };

	put_table_part(out, "/proc/meminfo", memory);
	put_table_part(out, "/proc/vmstat", events);
	put_line(out, "zram_mm_stat", "/sys/block/zram0/mm_stat");
	put_line(out, "zram_bd_stat", "/sys/block/zram0/bd_stat");
	put_disk(out);
	put_pressure(out);
	put_schedule(out);
}
