/* JSON documents, and a redis-server that keeps them, reached by a Unix socket with its plain protocol (RESP2). */
#ifndef REDIS_H
#define REDIS_H

#include <stddef.h>
#include <stdint.h>

#define DOCUMENT_BYTES 2048

/* The document of a number and version; returns its length. */
size_t document_make(char *text, uint64_t number, uint32_t version);

/* A SET command for it; returns its length (at most DOCUMENT_BYTES + 128). */
size_t document_set(char *command, uint64_t number, uint32_t version);

int redis_connect(const char *path);

/* 0, or -1 with errno. */
int redis_set(int link, uint64_t number, uint32_t version);

/* 1: it is the document, 0: it is not, -1: errno. */
int redis_get(int link, uint64_t number, uint32_t version);

#endif
