#include "report.h"

#include "acon.h"
#include "histogram.h"

#include <string.h>

#define NAMES 16
#define NAME_BYTES 32
#define LINE_BYTES 128
#define MOST ((uint64_t)1 << 53) /* what a reader of JSON takes as a whole number */

struct kind {
	char name[NAME_BYTES + 1];
	uint64_t operations;
	int counted;
	struct histogram latency;
};

static struct kind kinds[NAMES];
static unsigned int known;
static uint64_t start_ns, stop_ns, invalid, lines;
static char line[LINE_BYTES];
static size_t length;

void report_start(uint64_t now_ns)
{
	start_ns = now_ns;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
	return a > MOST - b ? MOST : a + b;
}

static int is_name(const char *text, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		char c = text[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("_.-", c)) || !c)
			return 0;
	}
	return count > 0 && count <= NAME_BYTES;
}

static struct kind *kind_of(const char *text, size_t count)
{
	unsigned int i;

	if (!is_name(text, count))
		return NULL;
	for (i = 0; i < known; i++)
		if (!strncmp(kinds[i].name, text, count) && !kinds[i].name[count])
			return &kinds[i];
	if (known == NAMES)
		return NULL;
	memcpy(kinds[known].name, text, count);
	return &kinds[known++];
}

/* The next word of a line, "" at its end. */
static const char *word(const char **rest, size_t *count)
{
	const char *start = *rest + strspn(*rest, " \t");

	*count = strcspn(start, " \t");
	*rest = start + *count;
	return start;
}

static int number(const char *text, size_t count, uint64_t *value)
{
	size_t i;

	*value = 0;
	for (i = 0; i < count; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		*value = *value * 10 + (uint64_t)(text[i] - '0');
		if (*value > MOST)
			return 0;
	}
	return count > 0;
}

static void note(struct histogram *h, uint64_t ns, uint64_t count)
{
	uint64_t before = h->count, times = count - 1;

	histogram_note(h, ns);
	/* the others of that line at once: a count may be large */
	h->bucket[histogram_bucket(ns)] += times;
	h->count = sum(before + 1, times);
	h->total_ns = sum(h->total_ns, ns && times > MOST / ns ? MOST : ns * times);
}

static void forget(void)
{
	memset(kinds, 0, sizeof(kinds));
	known = 0;
	stop_ns = 0;
}

/* Whether a line was understood. */
static int take_line(uint64_t now_ns)
{
	const char *rest = line, *what, *name, *third, *fourth;
	size_t what_count, name_count, third_count, fourth_count, more;
	uint64_t value = 1, count = 1;
	struct kind *kind;

	what = word(&rest, &what_count);
	name = word(&rest, &name_count);
	third = word(&rest, &third_count);
	fourth = word(&rest, &fourth_count);
	word(&rest, &more);
	if (more)
		return 0;
	if (what_count == 5 && !memcmp(what, "begin", 5) && !name_count) {
		forget();
		start_ns = now_ns;
		return 1;
	}
	if (what_count == 3 && !memcmp(what, "end", 3) && !name_count) {
		stop_ns = stop_ns ? stop_ns : now_ns;
		return 1;
	}
	if (what_count == 2 && !memcmp(what, "op", 2)) {
		if (fourth_count || (third_count && !number(third, third_count, &value)) || !(kind = kind_of(name, name_count)))
			return 0;
		if (!stop_ns) {
			kind->operations = sum(kind->operations, value);
			kind->counted = 1;
		}
		return 1;
	}
	if (what_count != 7 || memcmp(what, "latency", 7) || !number(third, third_count, &value) ||
	    (fourth_count && (!number(fourth, fourth_count, &count) || !count)) || !(kind = kind_of(name, name_count)))
		return 0;
	if (!stop_ns)
		note(&kind->latency, value, count);
	return 1;
}

void report_take(const char *bytes, size_t count, uint64_t now_ns)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (bytes[i] != '\n') {
			/* a NUL would end the line before its end; a line that is too long is not understood as a whole */
			if (length < LINE_BYTES - 1)
				line[length] = bytes[i] ? bytes[i] : '?';
			length += length < LINE_BYTES;
			continue;
		}
		if (length && length < LINE_BYTES && line[length - 1] == '\r')
			length--;
		lines++;
		line[length < LINE_BYTES ? length : 0] = 0;
		if (length >= LINE_BYTES || !take_line(now_ns))
			invalid++;
		length = 0;
	}
}

void report_json(FILE *out, uint64_t end_ns)
{
	uint64_t end = stop_ns ? stop_ns : end_ns;
	const char *comma = "";
	unsigned int i;

	if (!lines)
		return;
	fprintf(out, "{\"event\":\"reports\",\"lines\":%llu,\"invalid\":%llu,\"elapsed_ns\":%llu,\"operations\":{",
		(unsigned long long)lines, (unsigned long long)invalid,
		(unsigned long long)(end > start_ns ? end - start_ns : 0));
	for (i = 0; i < known; i++) {
		uint64_t done = kinds[i].counted ? kinds[i].operations : kinds[i].latency.count;

		fprintf(out, "%s\"%s\":%llu", comma, kinds[i].name, (unsigned long long)done);
		comma = ",";
	}
	fprintf(out, "}}\n");
	for (i = 0; i < known; i++) {
		if (!kinds[i].latency.count)
			continue;
		fprintf(out, "{\"event\":\"reported-timing\",\"name\":\"%s\",", kinds[i].name);
		histogram_json(out, &kinds[i].latency);
		fprintf(out, "}\n");
	}
}
