/* /init of a guest for tests of the counting: loops of two instructions between marks, and a sleep. */
#include "mark.h"

#include <sys/reboot.h>
#include <unistd.h>

static void loop(uint64_t rounds)
{
	acon_mark(ACON_MARK_BEGIN);
	__asm__ volatile("1: dec %0; jnz 1b" : "+r"(rounds));
	acon_mark(ACON_MARK_END);
}

int main(void)
{
	acon_mark(ACON_MARK_INIT);
	loop(100000);
	loop(700000);
	acon_mark(ACON_MARK_BEGIN);
	usleep(20000);
	acon_mark(ACON_MARK_END);
	reboot(RB_POWER_OFF);
	return 1;
}
