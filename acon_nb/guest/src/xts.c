#include "xts.h"

#include <immintrin.h>

#define AT_ONCE 8
#define EACH_BLOCK _Pragma("GCC unroll 8") for (i = 0; i < AT_ONCE; i++) /* in registers, as the kernel's code has them */
#define AES __attribute__((target("aes,sse4.1")))

int xts_known(void)
{
	return __builtin_cpu_supports("aes");
}

static __m128i spread(__m128i key)
{
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	return _mm_xor_si128(key, _mm_slli_si128(key, 8));
}

/* FIPS 197, 5.2: the key schedule of 256 bits, two round keys a step */
#define STEP(number, constant)                                                                                      \
	do {                                                                                                        \
		__m128i high = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(second, constant), 0xff);                \
		first = _mm_xor_si128(spread(first), high);                                                         \
		_mm_store_si128((__m128i *)round[2 * (number)], first);                                             \
		if ((number) < 7) {                                                                                 \
			high = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(first, 0), 0xaa);                        \
			second = _mm_xor_si128(spread(second), high);                                               \
			_mm_store_si128((__m128i *)round[2 * (number) + 1], second);                                \
		}                                                                                                   \
	} while (0)

AES static void expand(unsigned char round[][16], const unsigned char *key)
{
	__m128i first = _mm_loadu_si128((const __m128i *)key);
	__m128i second = _mm_loadu_si128((const __m128i *)(key + 16));

	_mm_store_si128((__m128i *)round[0], first);
	_mm_store_si128((__m128i *)round[1], second);
	STEP(1, 0x01);
	STEP(2, 0x02);
	STEP(3, 0x04);
	STEP(4, 0x08);
	STEP(5, 0x10);
	STEP(6, 0x20);
	STEP(7, 0x40);
}

void xts_set_key(struct xts *xts, const unsigned char key[XTS_KEY])
{
	expand(xts->data, key);
	expand(xts->tweak, key + XTS_KEY / 2);
}

AES static __m128i encrypt_block(const unsigned char round[][16], __m128i block)
{
	int i;

	block = _mm_xor_si128(block, _mm_load_si128((const __m128i *)round[0]));
	for (i = 1; i < XTS_ROUNDS; i++)
		block = _mm_aesenc_si128(block, _mm_load_si128((const __m128i *)round[i]));
	return _mm_aesenclast_si128(block, _mm_load_si128((const __m128i *)round[XTS_ROUNDS]));
}

/* The tweak of the next block: times x in GF(2^128). */
static __m128i next_tweak(__m128i tweak)
{
	__m128i carry = _mm_shuffle_epi32(_mm_srai_epi32(tweak, 31), 0x13);

	carry = _mm_and_si128(carry, _mm_set_epi32(0, 1, 0, 0x87));
	return _mm_xor_si128(_mm_add_epi64(tweak, tweak), carry);
}

AES void xts_encrypt(const struct xts *xts, uint64_t sector, const void *in, void *out, size_t size)
{
	__m128i tweak = encrypt_block(xts->tweak, _mm_set_epi64x(0, (long long)sector));
	size_t done;

	for (done = 0; done < size; done += AT_ONCE * 16) {
		const __m128i *from = (const __m128i *)((const char *)in + done);
		__m128i *to = (__m128i *)((char *)out + done);
		__m128i block[AT_ONCE], tweaks[AT_ONCE], key = _mm_load_si128((const __m128i *)xts->data[0]);
		int i, number;

		EACH_BLOCK {
			tweaks[i] = tweak;
			tweak = next_tweak(tweak);
			block[i] = _mm_xor_si128(_mm_xor_si128(_mm_loadu_si128(from + i), tweaks[i]), key);
		}
		for (number = 1; number < XTS_ROUNDS; number++) {
			key = _mm_load_si128((const __m128i *)xts->data[number]);
			EACH_BLOCK
				block[i] = _mm_aesenc_si128(block[i], key);
		}
		key = _mm_load_si128((const __m128i *)xts->data[XTS_ROUNDS]);
		EACH_BLOCK
			_mm_storeu_si128(to + i, _mm_xor_si128(_mm_aesenclast_si128(block[i], key), tweaks[i]));
	}
}
