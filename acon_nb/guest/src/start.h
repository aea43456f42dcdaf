/*
 * The start of a program without a C library: it calls the program's begin() with the stack that the kernel gave it,
 * which is the number of arguments, these, NULL, the environment, NULL.
 */
#ifndef ACON_START_H
#define ACON_START_H

__asm__(".globl _start\n"
	"_start:\n"
	"	mov %rsp, %rdi\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call begin\n");

#endif
