#define _GNU_SOURCE
#include "groups.h"

#include "acon.h"
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEET_US 500

struct reclaimed *reclaimed;
static struct shared *all;
static struct meeting {
	uint32_t here, round;
} *meeting;
static int groups, limited, own;
static pid_t workers[MOST_GROUPS];

static void *shared_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		acon_fail("shared memory");
	return memory;
}

void groups_take_parameters(void)
{
	limited = atoi(parameter("groups", "0"));
	if (limited < 0 || limited > MOST_GROUPS)
		acon_fail("too many groups");
	groups = limited ? limited : 1;
	all = shared_memory((size_t)groups * sizeof(*all));
	meeting = shared_memory(sizeof(*meeting));
	reclaimed = shared_memory(sizeof(*reclaimed));
	threads_take_parameters(groups);
	shared = all;
	if (groups > 1) {
		parameters.pages /= (uint64_t)groups;
		parameters.accesses /= (uint64_t)groups;
	}
}

struct shared *group_shared(int group)
{
	return &all[group];
}

int group_number(void)
{
	return own;
}

int group_talks(void)
{
	return !own;
}

void groups_fork(void)
{
	static char folder[64];
	int group;

	for (group = 1; group < groups; group++) {
		pid_t pid = fork();

		if (pid < 0)
			give_up("starting a worker");
		workers[group] = pid;
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		own = group;
		shared = &all[group];
		break;
	}
	if (groups > 1) {
		parameters.pattern.lane = own;
		snprintf(folder, sizeof(folder), "%s/%d", parameters.folder, own);
		if (!strcmp(parameters.workload, "tmpfs") && mkdir(folder, 0700))
			give_up(folder);
		parameters.folder = folder;
	}
}

void group_join(void)
{
	char path[96];
	int fd;

	if (!limited)
		return;
	snprintf(path, sizeof(path), GROUP_FOLDER "/%d/cgroup.procs", own);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		give_up(path);
	close(fd);
}

/* A worker that died is seen by the one that talks, whose child it is; what it shared says how far it came. */
static void look_after(void)
{
	int status, group;
	pid_t pid = own ? 0 : waitpid(-1, &status, WNOHANG);

	if (pid <= 0)
		return;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	for (group = 1; group < groups - 1 && workers[group] != pid; group++)
		;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		shared->killed_other = 1;
	if (all[group].failed[0])
		snprintf(shared->failed, sizeof(shared->failed), "group %d: %.230s", group, all[group].failed);
	else
		snprintf(shared->failed, sizeof(shared->failed), "the worker of group %d was killed", group);
	_exit(5);
}

void groups_meet(void)
{
	uint32_t round;

	if (groups == 1)
		return;
	round = __atomic_load_n(&meeting->round, __ATOMIC_SEQ_CST);
	if (__atomic_add_fetch(&meeting->here, 1, __ATOMIC_SEQ_CST) == (uint32_t)groups) {
		__atomic_store_n(&meeting->here, 0, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&meeting->round, 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (__atomic_load_n(&meeting->round, __ATOMIC_SEQ_CST) == round) {
		look_after();
		usleep(MEET_US);
	}
}

static void longest(uint64_t *mine, uint64_t other)
{
	if (other > *mine)
		*mine = other;
}

uint64_t groups_done(void)
{
	uint64_t sum = 0;
	int group;

	for (group = 0; group < groups; group++)
		sum += all[group].done + all[group].phase;
	return sum;
}

void groups_merge(void)
{
	int group;

	for (group = 0; group < groups; group++)
		threads_merge(group, &all[group]);
	for (group = 1; group < groups; group++) {
		const struct shared *other = &all[group];

		histogram_add(&shared->fill, &other->fill);
		histogram_add(&shared->hit, &other->hit);
		histogram_add(&shared->fault, &other->fault);
		longest(&shared->fill_ns, other->fill_ns);
		longest(&shared->access_ns, other->access_ns);
		shared->things += other->things;
		shared->corrupt += other->corrupt;
		shared->warmed += other->warmed;
		if (other->corrupt_seen && !shared->corrupt_seen)
			shared->first_corrupt = other->first_corrupt;
		shared->corrupt_seen |= other->corrupt_seen;
	}
}

static void put_number(FILE *out, int group, const char *file, const char *name)
{
	char path[128], text[64];
	FILE *from;

	snprintf(path, sizeof(path), GROUP_FOLDER "/%d/%s", group, file);
	from = fopen(path, "r");
	if (from && fgets(text, sizeof(text), from) && text[0] >= '0' && text[0] <= '9')
		fprintf(out, ",\"%s\":%llu", name, strtoull(text, NULL, 10));
	if (from)
		fclose(from);
}

static void put_pressure(FILE *out, int group)
{
	char path[128], line[256];
	FILE *from;

	snprintf(path, sizeof(path), GROUP_FOLDER "/%d/memory.pressure", group);
	from = fopen(path, "r");
	while (from && fgets(line, sizeof(line), from)) {
		const char *total = strstr(line, "total=");

		if (total)
			fprintf(out, ",\"psi_%.4s_us\":%llu", line, strtoull(total + 6, NULL, 10));
	}
	if (from)
		fclose(from);
}

void groups_counters(FILE *out)
{
	static const char *const tables[] = { "memory.events.local", "memory.stat" };
	static const char *const names[] = { "events", "stat" };
	char path[128];
	int group, i;

	for (group = 0; group < limited; group++) {
		const struct shared *one = &all[group];

		fprintf(out, "%s{\"group\":%d,\"accesses\":%llu,\"access_ns\":%llu,\"faults\":%llu", group ? "," : ",\"cgroups\":[",
			group, (unsigned long long)(one->hit.count + one->fault.count), (unsigned long long)one->access_ns,
			(unsigned long long)one->fault.count);
		put_number(out, group, "memory.current", "current");
		put_number(out, group, "memory.peak", "peak");
		put_number(out, group, "memory.swap.current", "swap");
		put_number(out, group, "memory.swap.peak", "swap_peak");
		put_number(out, group, "memory.zswap.current", "zswap");
		put_pressure(out, group);
		for (i = 0; i < 2; i++) {
			snprintf(path, sizeof(path), GROUP_FOLDER "/%d/%s", group, tables[i]);
			fprintf(out, ",\"%s\":", names[i]);
			acon_json_table(out, path);
		}
		fputc('}', out);
	}
	if (limited)
		fputc(']', out);
}
