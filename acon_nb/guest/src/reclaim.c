/*
 * Proactive reclaim of the workers' groups, in the manner of Senpai. Every interval, of each group,
 *
 *	pressure = growth of memory.pressure's some total / interval
 *	asked    = memory.current * step * max(0, 1 - pressure / target)
 *
 * is written to memory.reclaim, but never so much that memory.current would fall below the floor. That is the rule of
 * Weiner et al., "TMO: Transparent Memory Offloading in Datacenters", ASPLOS 2022, section 3.3, whose values are 6 s,
 * 0.1 % and 0.05 %.
 */
#define _GNU_SOURCE
#include "groups.h"

#include "acon.h"
#include "counters.h"
#include "pages.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static struct reclaim rule;
static uint64_t stalled_us[MOST_GROUPS];

static uint64_t some_us(int group)
{
	char path[128], text[256], *total;
	FILE *from;
	uint64_t us = 0;

	snprintf(path, sizeof(path), GROUP_FOLDER "/%d/memory.pressure", group);
	from = fopen(path, "r");
	if (from && fgets(text, sizeof(text), from) && (total = strstr(text, "total=")))
		us = strtoull(total + 6, NULL, 10);
	if (from)
		fclose(from);
	return us;
}

/* The bytes to ask for, in whole pages. */
static uint64_t wanted(uint64_t current, uint64_t pressure_per_million)
{
	double share = 1 - (double)pressure_per_million / (double)rule.target_per_million;
	uint64_t bytes = share <= 0 ? 0 : (uint64_t)((double)current * (double)rule.step_per_million / 1e6 * share);

	if (current <= rule.floor_bytes)
		return 0;
	if (bytes > current - rule.floor_bytes)
		bytes = current - rule.floor_bytes;
	return bytes / PAGE * PAGE;
}

static void reclaim_from(int group, uint64_t elapsed_ns)
{
	char path[128], text[32];
	uint64_t us = some_us(group), pressure, bytes;
	long long current;
	int fd;

	pressure = (uint64_t)((double)(us - stalled_us[group]) * 1e9 / (double)elapsed_ns);
	stalled_us[group] = us;
	snprintf(path, sizeof(path), GROUP_FOLDER "/%d/memory.current", group);
	current = counters_number(path);
	if (pressure >= rule.target_per_million)
		reclaimed->backoffs++;
	bytes = current > 0 ? wanted((uint64_t)current, pressure) : 0;
	if (!bytes)
		return;
	snprintf(path, sizeof(path), GROUP_FOLDER "/%d/memory.reclaim", group);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	reclaimed->asked_bytes += bytes;
	if (fd < 0 || write(fd, text, strlen(text)) < 0) /* EAGAIN: less than that could be reclaimed */
		reclaimed->refused++;
	if (fd >= 0)
		close(fd);
}

void start_reclaim(void)
{
	int group, groups = atoi(parameter("groups", "0"));
	struct timespec pause;
	uint64_t last_ns, now_ns;

	rule.interval_ns = strtoull(parameter("reclaim_ns", "0"), NULL, 10);
	rule.target_per_million = strtoull(parameter("reclaim_target", "1000"), NULL, 10);
	rule.step_per_million = strtoull(parameter("reclaim_step", "500"), NULL, 10);
	rule.floor_bytes = strtoull(parameter("reclaim_floor", "0"), NULL, 10);
	if (!rule.interval_ns || !groups || fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	put_text("/proc/self/oom_score_adj", "-1000");
	lock_up(MCL_CURRENT);
	pause.tv_sec = (time_t)(rule.interval_ns / 1000000000);
	pause.tv_nsec = (long)(rule.interval_ns % 1000000000);
	for (group = 0; group < groups; group++)
		stalled_us[group] = some_us(group);
	last_ns = acon_now_ns();
	for (;;) {
		nanosleep(&pause, NULL);
		now_ns = acon_now_ns();
		for (group = 0; group < groups; group++)
			reclaim_from(group, now_ns - last_ns);
		last_ns = now_ns;
		reclaimed->rounds++;
	}
}
