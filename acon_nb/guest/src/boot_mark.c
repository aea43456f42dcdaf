/*
 * boot-mark: what the kernel starts in place of /init (rdinit=) where instructions are counted. It marks the moment
 * (mark.h) and becomes /init. No C library, so that the mark is all but the first instruction of user space.
 */
#include "mark.h"
#include "start.h"

#include <sys/syscall.h>

static long call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

/* `stack` is what the kernel starts a program with: the number of arguments, these, NULL, the environment, NULL. */
__attribute__((used)) static _Noreturn void begin(long *stack)
{
	static char init[] = "/init";
	char **arguments = (char **)(stack + 1), **environment = arguments + *stack + 1;

	acon_mark(ACON_MARK_INIT);
	arguments[0] = init;
	call(SYS_execve, (long)init, (long)arguments, (long)environment);
	for (;;)
		call(SYS_exit_group, 127, 0, 0); /* the kernel panics and says so */
}
