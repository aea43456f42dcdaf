/*
 * What the guest programs share: the virtio-serial port by which results leave the guest as JSON lines,
 * clocks, the kernel's log, and the end of the guest.
 */
#ifndef ACON_H
#define ACON_H

#include <stdint.h>
#include <stdio.h>

/* Time since boot in ns (CLOCK_MONOTONIC). */
uint64_t acon_now_ns(void);

/* The time stamp counter. On QEMU's instruction clock: ns since reset. */
uint64_t acon_tsc(void);

/* Open the port; waits up to two seconds for the driver. NULL and a word on stderr if it never comes. */
FILE *acon_port(void);

/* Write text as a JSON string, quotes and all; or so many bytes: what is not ASCII becomes \u00XX. */
void acon_json_string(FILE *out, const char *text);
void acon_json_bytes(FILE *out, const char *bytes, size_t count);

/* Write one "Name: number kB" or "name number" file as a JSON object of numbers. */
void acon_json_table(FILE *out, const char *path);

/* Say it on the console and power off. */
_Noreturn void acon_power_off(void);
_Noreturn void acon_fail(const char *what);

#endif
