/*
 * micro NAME: one class of work for some 50 ms (benchmarks/cost_model.py). Without a name it lists them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (1u << 20)
#define KEEP(value)                                      \
	do {                                             \
		__asm__ volatile("" : "+r"(value));      \
	} while (0)

static uint64_t seed = 88172645463325252u;

static uint64_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Four sums side by side: as many instructions a cycle as there are. */
static void parallel(void)
{
	uint64_t a = 1, b = 2, c = 3, d = 4;
	int i;

	for (i = 0; i < 40000000; i++) {
		a += b;
		KEEP(a);
		b ^= c;
		KEEP(b);
		c += d;
		KEEP(c);
		d ^= a;
		KEEP(d);
	}
}

/* Each instruction waits for the one before. */
static void serial(void)
{
	uint64_t a = 1;
	int i;

	for (i = 0; i < 40000000; i++) {
		a += 3;
		KEEP(a);
		a ^= 5;
		KEEP(a);
		a -= 7;
		KEEP(a);
	}
}

static void multiply(void)
{
	uint64_t a = 3;
	int i;

	for (i = 0; i < 40000000; i++) {
		a *= 2862933555777941757u;
		KEEP(a);
	}
}

static void divide(void)
{
	uint64_t a = ~0ull, by = 3;
	int i;

	for (i = 0; i < 8000000; i++) {
		KEEP(by);
		a = a / by + 0xfffffffffffull;
		KEEP(a);
	}
}

static void chase(size_t bytes, int loads, size_t line)
{
	size_t count = bytes / line, i;
	size_t *order = malloc(count * sizeof(*order));
	unsigned char *lines = aligned_alloc(4096, bytes);
	void **next;

	for (i = 0; i < count; i++)
		order[i] = i;
	for (i = count - 1; i; i--) {
		size_t other = draw() % i, kept = order[i];

		order[i] = order[other];
		order[other] = kept;
	}
	for (i = 0; i < count; i++)
		*(void **)(lines + i * line) = lines + order[i] * line;
	next = (void **)lines;
	while (loads--)
		next = *next;
	KEEP(next);
}

static void chase_l1(void)
{
	chase(16 << 10, 40000000, 64);
}

static void chase_l2(void)
{
	chase(1 * MIB, 8000000, 64);
}

static void chase_l3(void)
{
	chase(24 * MIB, 1000000, 64);
}

static void chase_memory(void)
{
	chase(192 * MIB, 400000, 64);
}

static void chase_tlb(void)
{
	chase(4 * MIB, 4000000, 4096 + 64);
}

static void sum(size_t bytes, int times)
{
	uint64_t *words = malloc(bytes), total = 0;
	size_t i;

	memset(words, 1, bytes);
	while (times--)
		for (i = 0; i < bytes / 8; i++) {
			total += words[i];
			KEEP(total);
		}
}

static void loads(void)
{
	sum(16 << 10, 40000);
}

static void loads_far(void)
{
	sum(64 * MIB, 4);
}

static void stores(void)
{
	static uint64_t words[2048];
	uint64_t times, *all = words;
	int i;

	for (times = 0; times < 40000; times++) {
		for (i = 0; i < 2048; i++)
			((volatile uint64_t *)all)[i] = times;
		KEEP(all);
	}
}

static void copy(size_t bytes, int times)
{
	char *from = malloc(bytes), *to = malloc(bytes);

	memset(from, 1, bytes);
	while (times--) {
		memcpy(to, from, bytes);
		KEEP(to);
	}
}

static void copy_64(void)
{
	copy(64, 20000000);
}

static void copy_page(void)
{
	copy(4096, 800000);
}

static void copy_mib(void)
{
	copy(MIB, 1500);
}

static void copy_far(void)
{
	copy(64 * MIB, 5);
}

/* Branches that no predictor knows, then branches that all know. */
static void branches(unsigned int mask, int times)
{
	static unsigned char bits[MIB];
	size_t i;
	uint64_t a = 0;

	for (i = 0; i < sizeof(bits); i++)
		bits[i] = draw() & mask;
	while (times--)
		for (i = 0; i < sizeof(bits); i++) {
			if (bits[i])
				__asm__ volatile("addq $3, %0" : "+r"(a));
			else
				__asm__ volatile("xorq $5, %0" : "+r"(a));
		}
}

static void branches_random(void)
{
	branches(1, 12);
}

static void branches_known(void)
{
	branches(0, 60);
}

static uint64_t fibonacci(int n)
{
	return n < 2 ? (uint64_t)n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void calls(void)
{
	uint64_t (*volatile of)(int) = fibonacci;

	of(33);
}

__attribute__((target("aes"))) static void cipher(void)
{
	__m128i block[8], key = _mm_set1_epi32(77);
	int i, j;

	for (j = 0; j < 8; j++)
		block[j] = _mm_set1_epi32(j);
	for (i = 0; i < 6000000; i++)
#pragma GCC unroll 8
		for (j = 0; j < 8; j++)
			block[j] = _mm_aesenc_si128(block[j], key);
	for (j = 1; j < 8; j++)
		block[0] = _mm_xor_si128(block[0], block[j]);
	if (_mm_cvtsi128_si32(block[0]) == 1)
		puts("");
}

static void simd(void)
{
	__m128i a = _mm_set1_epi32(1), b = _mm_set1_epi32(2), c = a, d = b;
	int i;

	for (i = 0; i < 40000000; i++) {
		a = _mm_add_epi32(a, b);
		__asm__ volatile("" : "+x"(a));
		b = _mm_xor_si128(b, c);
		__asm__ volatile("" : "+x"(b));
		c = _mm_add_epi32(c, d);
		__asm__ volatile("" : "+x"(c));
		d = _mm_shuffle_epi32(d, 0x1b);
		__asm__ volatile("" : "+x"(d));
	}
}

static void faults(void)
{
	size_t bytes = 64 * MIB, i;
	unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(memory, bytes, MADV_NOHUGEPAGE);
	for (i = 0; i < bytes; i += 4096)
		memory[i] = 1;
}

static void system_calls(void)
{
	int i;

	for (i = 0; i < 500000; i++)
		syscall(SYS_getppid);
}

static void reads(void)
{
	static char buffer[65536];
	int file = open("/proc/self/exe", O_RDONLY), i;

	for (i = 0; i < 20000; i++)
		if (pread(file, buffer, sizeof(buffer), 0) < 0)
			exit(1);
}

static const struct {
	const char *name;
	void (*work)(void);
} all[] = {
	{ "parallel", parallel }, { "serial", serial }, { "multiply", multiply }, { "divide", divide },
	{ "chase_l1", chase_l1 }, { "chase_l2", chase_l2 }, { "chase_l3", chase_l3 }, { "chase_memory", chase_memory },
	{ "chase_tlb", chase_tlb }, { "loads", loads }, { "loads_far", loads_far }, { "stores", stores },
	{ "copy_64", copy_64 }, { "copy_page", copy_page }, { "copy_mib", copy_mib }, { "copy_far", copy_far },
	{ "branches_random", branches_random }, { "branches_known", branches_known }, { "calls", calls },
	{ "cipher", cipher }, { "simd", simd }, { "faults", faults }, { "system_calls", system_calls }, { "reads", reads },
};

int main(int count, char **arg)
{
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(*all); i++) {
		if (count < 2)
			puts(all[i].name);
		else if (!strcmp(all[i].name, arg[1]))
			all[i].work();
	}
	return 0;
}
