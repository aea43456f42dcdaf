/*
 * classes: how long each class of a guest's work takes, in fixed amounts.
 *
 *   classes time FILE ROUNDS     JSON: ns of each class, the fastest of ROUNDS
 *   classes guest FILE ROUNDS    the same on the results port
 *   classes cipher FILE          the file's first page encrypted, with the key and sector of IEEE 1619's tenth vector
 *
 * The same static program runs on the host and in the guest: the quotient is the dilation of that class. The codecs'
 * times are of 4 KiB pages of FILE.
 */
#define _GNU_SOURCE
#include "acon.h"
#include "codecs.h"
#include "xts.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE CODEC_PAGE
#define CHUNK 8 /* pages timed at once: short, so that a busy host lets some rounds through undisturbed */
#define REPEATS 32
#define FAULTS 512
#define CALLS 2000
#define CHASE_BYTES (16u << 20)
#define LINE 64
#define LOADS 20000
#define ERMS (1u << 9) /* CPUID.(7,0).EBX: fast rep movsb */

static unsigned char chunk[CHUNK * PAGE], copy_to[CHUNK * PAGE];
static struct xts xts;
static void **chase;

static uint64_t best_of(int rounds, void (*work)(void))
{
	uint64_t best = UINT64_MAX;

	while (rounds--) {
		uint64_t start = acon_now_ns();

		work();
		start = acon_now_ns() - start;
		if (start < best)
			best = start;
	}
	return best;
}

/*
 * copy_to_user of an aligned page as Linux 6.12 does it (arch/x86/lib/copy_user_64.S, rep_movs_alternative): bytes on CPUs
 * with ERMS, else words.
 */
static void copy_page_out(void *to, const void *from)
{
	static int erms = -1;
	unsigned int a, b, c, d;
	size_t bytes = PAGE, words = PAGE / 8;

	if (erms < 0)
		erms = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & ERMS);
	if (erms)
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	else
		__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

static void copies(void)
{
	int i, page;

	for (i = 0; i < REPEATS; i++)
		for (page = 0; page < CHUNK; page++)
			copy_page_out(copy_to + page * PAGE, chunk + page * PAGE);
}

static void ciphers(void)
{
	int page;

	for (page = 0; page < CHUNK; page++)
		xts_encrypt(&xts, (uint64_t)page, chunk + page * PAGE, copy_to + page * PAGE, PAGE);
}

static void calls(void)
{
	int i;

	for (i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
}

static void loads(void)
{
	static void **next;
	int i;

	if (!next)
		next = chase;
#pragma GCC unroll 16 /* so that the loop does not count */
	for (i = 0; i < LOADS; i++)
		next = *next;
	__asm__ volatile("" : : "r"(next));
}

/* Lines in one random cycle (Sattolo), so that each load waits for the one before and no prefetcher helps. */
static int chase_ready(void)
{
	size_t count = CHASE_BYTES / LINE, i;
	size_t *order = malloc(count * sizeof(*order));
	unsigned char *lines = aligned_alloc(LINE, CHASE_BYTES);
	uint64_t random = 88172645463325252u;

	if (!order || !lines)
		return 0;
	for (i = 0; i < count; i++)
		order[i] = i;
	for (i = count - 1; i; i--) {
		size_t other, kept = order[i];

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		other = random % i;
		order[i] = order[other];
		order[other] = kept;
	}
	for (i = 0; i < count; i++)
		*(void **)(lines + i * LINE) = lines + order[i] * LINE;
	free(order);
	chase = (void **)lines;
	return 1;
}

/* The least ns of the first writes to FAULTS pages of fresh anonymous memory; 0 if there is none. */
static uint64_t best_faults(int rounds)
{
	uint64_t best = UINT64_MAX;

	while (rounds--) {
		unsigned char *memory = mmap(NULL, FAULTS * PAGE, PROT_READ | PROT_WRITE,
					     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint64_t start;
		size_t page;

		if (memory == MAP_FAILED)
			return 0;
		madvise(memory, FAULTS * PAGE, MADV_NOHUGEPAGE); /* a kernel without huge pages refuses, rightly */
		start = acon_now_ns();
		for (page = 0; page < FAULTS; page++)
			*(volatile unsigned char *)(memory + page * PAGE) = 1;
		start = acon_now_ns() - start;
		if (start < best)
			best = start;
		munmap(memory, FAULTS * PAGE);
	}
	return best;
}

/* ns a page of compressing and of decompressing; 0 if a page does not come back. */
static int time_codec(const struct codec *codec, const unsigned char *data, size_t pages, int rounds, double ns[2])
{
	static unsigned char packed[CHUNK][CODEC_ROOM], back[CHUNK][PAGE];
	size_t size[CHUNK], first, i, count;

	ns[0] = ns[1] = 0;
	for (first = 0; first < pages; first += count) {
		uint64_t best[2] = { UINT64_MAX, UINT64_MAX };
		int round;

		count = pages - first < CHUNK ? pages - first : CHUNK;
		for (round = 0; round < rounds; round++) {
			uint64_t start = acon_now_ns(), middle, end;
			int whole = 1;

			for (i = 0; i < count; i++)
				size[i] = codec->pack(data + (first + i) * PAGE, packed[i]);
			middle = acon_now_ns();
			for (i = 0; i < count; i++)
				whole &= codec->unpack(packed[i], size[i], back[i]);
			end = acon_now_ns();
			if (!whole || memcmp(back, data + first * PAGE, count * PAGE)) {
				fprintf(stderr, "classes: %s does not give page %zu back\n", codec->name, first);
				return 0;
			}
			if (middle - start < best[0])
				best[0] = middle - start;
			if (end - middle < best[1])
				best[1] = end - middle;
		}
		ns[0] += (double)best[0] / (double)pages;
		ns[1] += (double)best[1] / (double)pages;
	}
	return 1;
}

static int time_all(FILE *out, const unsigned char *data, size_t pages, int rounds)
{
	uint64_t faults = best_faults(rounds);
	size_t i;

	if (!faults || !chase_ready())
		return 1;
	fprintf(out, "{\"event\":\"classes\",\"ns\":{");
	for (i = 0; i < CODECS; i++) {
		double ns[2];

		if (!time_codec(&codecs[i], data, pages, rounds, ns))
			return 1;
		fprintf(out, "\"%s_compress\":%.1f,\"%s_decompress\":%.1f,", codecs[i].name, ns[0], codecs[i].name, ns[1]);
	}
	fprintf(out, "\"copy\":%.2f", (double)best_of(rounds, copies) / (REPEATS * CHUNK));
	fprintf(out, ",\"fault\":%.1f", (double)faults / FAULTS);
	fprintf(out, ",\"system_call\":%.2f", (double)best_of(rounds, calls) / CALLS);
	fprintf(out, ",\"pointer_chase\":%.3f", (double)best_of(rounds, loads) / LOADS);
	if (xts_known())
		fprintf(out, ",\"cipher\":%.1f", (double)best_of(rounds, ciphers) / CHUNK);
	fprintf(out, "},\"pages\":%zu,\"rounds\":%d}\n", pages, rounds);
	return fflush(out) != 0;
}

static void key_of_vector(void)
{
	/* IEEE 1619-2007, annex B, vector 10: the digits of e and of pi */
	static const unsigned char key[XTS_KEY] = {
		0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
		0x62, 0x49, 0x77, 0x57, 0x24, 0x70, 0x93, 0x69, 0x99, 0x59, 0x57, 0x49, 0x66, 0x96, 0x76, 0x27,
		0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95,
		0x02, 0x88, 0x41, 0x97, 0x16, 0x93, 0x99, 0x37, 0x51, 0x05, 0x82, 0x09, 0x74, 0x94, 0x45, 0x92,
	};

	xts_set_key(&xts, key);
}

int main(int count, char **arg)
{
	unsigned char *data;
	size_t pages;
	FILE *out = stdout;
	int rounds = count == 4 ? atoi(arg[3]) : 1;

	if (count < 3 || count > 4 || rounds < 1) {
		fprintf(stderr, "usage: classes time FILE ROUNDS | guest FILE ROUNDS | cipher FILE\n");
		return 2;
	}
	if (!codecs_ready())
		return 1;
	data = codecs_pages(arg[2], &pages);
	if (xts_known())
		key_of_vector();
	memcpy(chunk, data, pages < CHUNK ? pages * PAGE : sizeof(chunk));
	if (!strcmp(arg[1], "cipher")) {
		if (!xts_known())
			return 1;
		xts_encrypt(&xts, 0xff, data, copy_to, PAGE);
		return fwrite(copy_to, PAGE, 1, out) != 1;
	}
	if (!strcmp(arg[1], "guest"))
		out = acon_port();
	return !out || time_all(out, data, pages, rounds);
}
