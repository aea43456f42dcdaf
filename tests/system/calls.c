/* /init of a guest for tests of call trees: spans of system calls, and of two tasks that take turns. */
#include "mark.h"

#include <stdlib.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void call(int rounds)
{
	acon_mark(ACON_MARK_BEGIN);
	for (int i = 0; i < rounds; i++)
		syscall(SYS_getppid);
	acon_mark(ACON_MARK_END);
}

static void copy_bytes(int from, int to, int rounds)
{
	char byte = 0;

	for (int i = 0; i < rounds; i++) {
		if (read(from, &byte, 1) != 1 || write(to, &byte, 1) != 1)
			exit(1);
	}
}

static void take_turns(int rounds)
{
	int there[2], back[2];

	if (pipe(there) || pipe(back))
		exit(1);
	acon_mark(ACON_MARK_BEGIN);
	if (fork() == 0) {
		copy_bytes(there[0], back[1], rounds);
		exit(0);
	}
	if (write(there[1], "", 1) != 1)
		exit(1);
	copy_bytes(back[0], there[1], rounds);
	wait(NULL);
	acon_mark(ACON_MARK_END);
}

int main(void)
{
	acon_mark(ACON_MARK_INIT);
	call(1000);
	call(4000);
	take_turns(200);
	reboot(RB_POWER_OFF);
	return 1;
}
