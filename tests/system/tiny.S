# A kernel of a few instructions for tests of the launch: a bzImage (Documentation/arch/x86/boot.rst) that stays in
# real mode. The first letter of its command line says what it does:
#   p  power off            r  reset
#   e  say READY and echo the serial port's input; the key q powers off
#   f  flood the serial port for ever          h  do nothing for ever
#   b  wait for the power button, then power off
#   s  sleep and wake 3000 times, say the sum of the times of waking as eight letters, power off
        .code16
        .section .text
        .globl _start
_start:
        .org    0x1f1
        .byte   1                       # setup_sects
        .org    0x1fe
        .word   0xaa55
        .org    0x200
        .byte   0xeb, entry - header    # jmp entry
header: .ascii  "HdrS"
        .word   0x020f
        .org    0x211
        .byte   1                       # LOADED_HIGH
        .org    0x228
pointer: .long  0                       # cmd_line_ptr, set by the loader
        .long   0x7fffffff              # initrd_addr_max
        .org    0x238
        .long   2047                    # cmdline_size
        .org    0x260
        .long   0x100000                # init_size
entry:  cli
        movl    pointer, %ebx           # its segment is DS's: the loader puts it into the same 64 KiB or above
        movl    %ebx, %eax
        shrl    $4, %eax
        movw    %ax, %es
        andl    $15, %ebx
        movb    %es:(%bx), %al
        cmpb    $'p', %al
        je      off
        cmpb    $'r', %al
        je      reset
        cmpb    $'e', %al
        je      echo
        cmpb    $'f', %al
        je      flood
        cmpb    $'b', %al
        je      button
        cmpb    $'s', %al
        je      sleep
stay:   hlt
        jmp     stay
off:    movw    $0x604, %dx             # q35: PM1a_CNT, SLP_EN with SLP_TYP 0
        movw    $0x2000, %ax
        outw    %ax, %dx
        jmp     stay
reset:  movb    $6, %al
        movw    $0xcf9, %dx
        outb    %al, %dx
        jmp     stay
echo:   movw    $text, %si
1:      lodsb
        testb   %al, %al
        jz      2f
        call    say
        jmp     1b
2:      movw    $0x3fd, %dx
        inb     %dx, %al
        testb   $1, %al
        jz      2b
        movw    $0x3f8, %dx
        inb     %dx, %al
        call    say
        cmpb    $'q', %al
        je      off
        jmp     2b
button: movw    $0x602, %dx             # PM1a_EN: PWRBTN_EN
        movw    $0x100, %ax
        outw    %ax, %dx
6:      movw    $0x600, %dx             # PM1a_STS: PWRBTN_STS
        inw     %dx, %ax
        testw   $0x100, %ax
        jz      6b
        jmp     off
sleep:  movb    $0x34, %al              # PIT: an interrupt every 100 us, to the BIOS
        outb    %al, $0x43
        movb    $119, %al
        outb    %al, $0x40
        xorl    %ebp, %ebp
        movl    %ebp, %eax
        outb    %al, $0x40
        movl    $3000, %edi
7:      sti
        hlt
        rdtsc
        roll    $1, %ebp
        addl    %eax, %ebp
        movl    %edi, %ecx              # work for 2 to 35 us
        andl    $0x3fff, %ecx
        addl    $1000, %ecx
8:      decl    %ecx
        jnz     8b
        decl    %edi
        jnz     7b
        cli
        movl    $8, %edi
9:      roll    $4, %ebp
        movl    %ebp, %eax
        andb    $15, %al
        addb    $'a', %al
        call    say
        decl    %edi
        jnz     9b
        movb    $'\n', %al
        call    say
        jmp     off
flood:  movb    $'x', %al
        movw    $0x3f8, %dx
3:      movw    $60000, %cx
4:      outb    %al, %dx
        loop    4b
        jmp     3b
say:    movb    %al, %ah                # wait for the transmitter, then send %al
        movw    $0x3fd, %dx
5:      inb     %dx, %al
        testb   $0x20, %al
        jz      5b
        movb    %ah, %al
        movw    $0x3f8, %dx
        outb    %al, %dx
        ret
text:   .asciz  "READY\r\n"
        .org    0x400
        .fill   512
