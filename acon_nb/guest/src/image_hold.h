/* Memory that a program of an image does not get, and what swap does not take: each held by a process that stays. */
#ifndef IMAGE_HOLD_H
#define IMAGE_HOLD_H

#include "image_run.h"

/* Lock memory until just so many bytes are available (MemAvailable). */
void hold_until(uint64_t wanted);

/* Lock the files that came with the initrd, the image's among them: they lie in a tmpfs, whose pages could be swapped. */
void keep_files(void);

#endif
