/* The description of a run, read; the image as the root of a process. */
#ifndef IMAGE_ROOT_H
#define IMAGE_ROOT_H

#include "image_run.h"

/* Read /acon/cell/run. */
void spec_read(struct image_spec *spec);

/* Mount what a program expects below the image, and bring up the loopback. */
void root_prepare(void);

/* Become a program of the image: root, folder, user, environment. Only returns, with errno, if that fails; *step says at what. */
void root_enter(const struct image_spec *spec, char *const *argv, const char **step);

#endif
