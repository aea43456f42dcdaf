/* /init of a guest for tests of profiles: a loop of two instructions a round, in a function of its own. */
#include <stdint.h>
#include <sys/reboot.h>
#include <unistd.h>

__attribute__((noipa)) static void planted(uint64_t rounds)
{
	__asm__ volatile("1: dec %0; jnz 1b" : "+r"(rounds));
}

int main(void)
{
	planted(300000);
	reboot(RB_POWER_OFF);
	return 1;
}
