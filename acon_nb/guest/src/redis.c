#define _GNU_SOURCE
#include "redis.h"

#include "pages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *const words[] = {
	"amber",  "basil",  "cedar", "delta",  "ember",	 "fjord", "grove", "harbour", "island", "juniper", "kernel",
	"lantern", "meadow", "north", "orchard", "pebble", "quarry", "river", "summit",	 "timber", "upland",  "valley",
	"willow", "yonder", "zephyr", "bridge", "copper", "drift",  "engine", "forest", "glacier", "hollow",
};

#define WORDS_COUNT (sizeof(words) / sizeof(*words))

static void draw_words(const char **drawn, int count, uint64_t *state)
{
	while (count--) {
		*state = mix(*state);
		drawn[count] = words[*state % WORDS_COUNT];
	}
}

size_t document_make(char *text, uint64_t number, uint32_t version)
{
	uint64_t state = mix(number << 20 ^ version);
	int left = (int)(4 + state % 12), used;
	const char *w[5];

	draw_words(w, 5, &state);
	used = snprintf(text, DOCUMENT_BYTES,
			"{\"id\":%llu,\"revision\":%u,\"token\":\"%016llx%016llx\",\"name\":\"%s %s\",\"email\":\"%s.%s@%s.example\","
			"\"created\":%llu,\"balance\":%llu.%02llu,\"active\":%s,\"items\":[",
			(unsigned long long)number, version, (unsigned long long)mix(state), (unsigned long long)mix(state + 1),
			w[0], w[1], w[2], w[3], w[4], (unsigned long long)(1600000000 + state % 100000000),
			(unsigned long long)(state >> 40) % 100000, (unsigned long long)(state >> 24) % 100,
			state & 1 ? "true" : "false");
	while (left--) {
		draw_words(w, 2, &state);
		used += snprintf(text + used, (size_t)(DOCUMENT_BYTES - used),
				 "{\"sku\":\"%08llx\",\"title\":\"%s %s\",\"count\":%llu,\"price\":%llu.%02llu}%s",
				 (unsigned long long)(state & 0xffffffff), w[0], w[1], (unsigned long long)(state % 9 + 1),
				 (unsigned long long)(state >> 33) % 500, (unsigned long long)(state >> 50) % 100, left ? "," : "]}");
	}
	return (size_t)used;
}

size_t document_set(char *command, uint64_t number, uint32_t version)
{
	char text[DOCUMENT_BYTES], key[32];
	size_t length = document_make(text, number, version);
	int key_length = snprintf(key, sizeof(key), "document:%llu", (unsigned long long)number);

	return (size_t)sprintf(command, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%zu\r\n%s\r\n", key_length, key, length, text);
}

int redis_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int tries;

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	for (tries = 0; tries < 1000; tries++) {
		int link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (link < 0 || !connect(link, (struct sockaddr *)&address, sizeof(address)))
			return link;
		close(link);
		usleep(20000);
	}
	return -1;
}

static int send_all(int link, const char *text, size_t length)
{
	while (length) {
		ssize_t sent = write(link, text, length);

		if (sent <= 0)
			return -1;
		text += sent;
		length -= (size_t)sent;
	}
	return 0;
}

/* Read until `wanted` bytes are there; if 0, until the first line is. Returns how many there are, or -1. */
static ssize_t take(int link, char *buffer, size_t room, size_t have, size_t wanted)
{
	while (wanted ? have < wanted : !memchr(buffer, '\n', have)) {
		ssize_t got = have < room ? read(link, buffer + have, room - have) : -1;

		if (got <= 0) {
			errno = got ? errno : EPIPE;
			return -1;
		}
		have += (size_t)got;
	}
	return (ssize_t)have;
}

int redis_set(int link, uint64_t number, uint32_t version)
{
	char text[DOCUMENT_BYTES + 128];

	if (send_all(link, text, document_set(text, number, version)) || take(link, text, sizeof(text), 0, 0) < 0)
		return -1;
	errno = EPROTO;
	return text[0] == '+' ? 0 : -1;
}

int redis_get(int link, uint64_t number, uint32_t version)
{
	char text[DOCUMENT_BYTES + 128], expected[DOCUMENT_BYTES], key[32];
	int key_length = snprintf(key, sizeof(key), "document:%llu", (unsigned long long)number);
	size_t length, head;
	ssize_t have;

	length = (size_t)sprintf(text, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_length, key);
	if (send_all(link, text, length) || (have = take(link, text, sizeof(text), 0, 0)) < 0)
		return -1;
	length = (size_t)strtoull(text + 1, NULL, 10);
	head = (size_t)((char *)memchr(text, '\n', (size_t)have) - text) + 1;
	if (text[0] != '$' || length > DOCUMENT_BYTES)
		return 0;
	if (take(link, text, sizeof(text), (size_t)have, head + length + 2) < 0)
		return -1;
	return document_make(expected, number, version) == length && !memcmp(expected, text + head, length);
}
