/* A program of the user's in place of our own work: how it is started, what it prints, what it reports. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdint.h>
#include <stdio.h>

/* Before the fork: the pipes by which the program prints and reports. */
void program_pipes(void);

/* In the worker: read what the cell says of its program, put its files where they belong; run it; see what it left. */
void program_prepare(void);
void program_run(void);
void program_leave(void);

/* In the parent: the descriptor by which the program reports, to be polled, -1 while it is not to be read yet. */
int program_report_fd(void);

/* In the parent: read what the program has printed and reported; end a program that takes longer than it may. */
void program_tick(void);

/* In the parent, at the end: ,"program_status":... of the result; and events of its own, "output" and "timing". */
void program_result(FILE *out);
void program_events(FILE *out);

#endif
