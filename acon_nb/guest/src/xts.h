/*
 * AES-256-XTS (IEEE 1619) by the processor's AES instructions, eight blocks at a time, as Linux'
 * arch/x86/crypto/aesni-intel_asm.S and aes-xts-avx-x86_64.S do it on a CPU without VAES.
 */
#ifndef XTS_H
#define XTS_H

#include <stddef.h>
#include <stdint.h>

#define XTS_KEY 64
#define XTS_ROUNDS 14

struct xts {
	/* round keys of the data's and of the tweak's key; bytes, so that no header of intrinsics is needed here */
	_Alignas(16) unsigned char data[XTS_ROUNDS + 1][16], tweak[XTS_ROUNDS + 1][16];
};

/* Whether the CPU has the instructions. */
int xts_known(void);

void xts_set_key(struct xts *xts, const unsigned char key[XTS_KEY]);

/* Encrypt `size` bytes (a multiple of 128) of sector `sector`. */
void xts_encrypt(const struct xts *xts, uint64_t sector, const void *in, void *out, size_t size);

#endif
