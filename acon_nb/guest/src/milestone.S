# Put into a copy of a kernel's image at a milestone of its boot: send the time stamp counter to the serial port as
# "ACON" and eight bytes, low half first, then wait for the end. The same text for all modes: BITS is 16, 32 or 64.
# Needs no stack, no memory and no segment but the code's own.
#if BITS == 16
	.code16
#elif BITS == 32
	.code32
#else
	.code64
#endif
	.text
	cli
	.byte	0x3e, 0x26, 0x3e, 0x2e	# prefixes without meaning: a mark for the plugin that counts (vm/plugin.c)
	rdtsc
	movl	%eax, %ebx
	movl	%edx, %ebp
	movl	$0x3f8, %edx
	movl	$0x4e4f4341, %eax
	movl	$4, %ecx
1:	outb	%al, %dx
	shrl	$8, %eax
	loop	1b
	movl	%ebx, %eax
	movl	$4, %ecx
2:	outb	%al, %dx
	shrl	$8, %eax
	loop	2b
	movl	%ebp, %eax
	movl	$4, %ecx
3:	outb	%al, %dx
	shrl	$8, %eax
	loop	3b
4:	jmp	4b
