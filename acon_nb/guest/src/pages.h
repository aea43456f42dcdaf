/*
 * What the pages of a swap cell hold: a file of 4 KiB pages, then a letter for each (d data, z zero, s same-filled).
 * Page N is page N modulo their number, shifted by the seed and stamped with N, the times it was written, and a
 * checksum. A page is checked by making it again: corruption, and a write that was lost, are findings.
 */
#ifndef PAGES_H
#define PAGES_H

#include <stdint.h>

#define PAGE 4096

uint64_t mix(uint64_t x);

/* Read the file and remove it, so that it takes no memory twice; 0, or an errno. */
int pages_load(const char *path, uint64_t seed);

void page_make(uint64_t *page, uint64_t number, uint32_t version);

/* Whether the page is what page_make makes. */
int page_good(const uint64_t *page, uint64_t number, uint32_t version);

#endif
