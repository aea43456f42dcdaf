/* tsc-rate: print the rate of this machine's time stamp counter in kHz, measured against CLOCK_MONOTONIC. */
#define _GNU_SOURCE
#include "acon.h"

#include <unistd.h>

int main(void)
{
	uint64_t tsc = acon_tsc(), ns = acon_now_ns();

	usleep(100000);
	tsc = acon_tsc() - tsc;
	ns = acon_now_ns() - ns;
	printf("%llu\n", (unsigned long long)((double)tsc * 1e6 / (double)ns + 0.5));
	return 0;
}
