/* What the kernel counts: whole tables at the ends of a phase, the few that tell a story many times in between. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <stdint.h>
#include <stdio.h>

/* Find kswapd, and remember the name of the disk whose I/O is counted. */
void counters_start(const char *disk);

/* Count huge pages and what DAMON reclaimed from now on, too: only where a cell sets their knobs. */
void counters_watch(int all);

/* ,"vmstat":{...},"meminfo_kib":{...},... */
void counters_all(FILE *out);

/* ,"memavailable_kib":...,... */
void counters_sample(FILE *out);

/* The first number of a file, or -1. */
long long counters_number(const char *path);

#endif
