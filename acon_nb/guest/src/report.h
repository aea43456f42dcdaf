/*
 * What a program reports of its own work, by lines on a descriptor:
 *
 *   op NAME [COUNT]          so many operations were done (default: 1)
 *   latency NAME NS [COUNT]  so many operations (default: 1) took NS nanoseconds each
 *   begin                    what counts begins now: what was reported before is forgotten
 *   end                      what counts has ended: what is reported from now on is not counted
 *
 * NAME is up to 32 letters, digits, "_", "-" or ".". The lines come from a program that nobody has checked: what is not
 * one of these is counted, and otherwise ignored.
 */
#ifndef REPORT_H
#define REPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The program starts; without a "begin" what counts begins here. */
void report_start(uint64_t now_ns);

/* Some bytes arrived; a line may come in several pieces. */
void report_take(const char *bytes, size_t count, uint64_t now_ns);

/* Events "reports" (and "timing" for each name with latencies), if anything was reported. */
void report_json(FILE *out, uint64_t end_ns);

#endif
