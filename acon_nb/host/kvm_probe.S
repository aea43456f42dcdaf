# A guest of a few instructions: real mode -> long mode with paging, a loop that touches 2 MiB of memory
# page by page, CPUID, what a kernel's decompressor does (instructions of BMI2 where the CPU has them, bytes copied
# 12 Mi times), and a port write that ends QEMU (isa-debug-exit). 4 KiB ROM at the top of 4 GiB.
        .code16
        .section .text
        .globl _start
_start:
rom:                                    # 0xfffff000
start16:
        cli
        lgdtl   %cs:(gdtr - rom + 0xf000)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $(start32 - rom + 0xfffff000)
        .code32
start32:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x9000, %esp
        # page tables at 0x1000 (PML4), 0x2000 (PDPT), 0x3000 (4 PDs of 2 MiB pages: 4 GiB, identity)
        xorl    %eax, %eax
        movl    $0x1000, %edi
        movl    $(6 * 4096 / 4), %ecx
        cld
        rep stosl
        movl    $0x2003, 0x1000
        movl    $0x2000, %edi
        movl    $0x3003, %eax
        movl    $4, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        movl    $0x3000, %edi
        movl    $0x83, %eax
        movl    $2048, %ecx
2:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    2b
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $0x20, %eax             # PAE
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       # EFER.LME
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax       # PG
        movl    %eax, %cr0
        ljmpl   $24, $(start64 - rom + 0xfffff000)
        .code64
start64:
        movl    $256, %ebx              # rounds
3:      movl    $0x200000, %edi
4:      incl    (%rdi)
        addl    $4096, %edi
        cmpl    $0x400000, %edi
        jb      4b
        xorl    %eax, %eax
        pushq   %rbx
        cpuid
        popq    %rbx
        decl    %ebx
        jnz     3b
        xorl    %eax, %eax
        cpuid
        cmpl    $7, %eax
        jb      6f
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $8, %ebx                # BMI2
        jnc     6f
        movl    $1, %r8d
        movl    $5, %edx
        shlx    %edx, %r8d, %r8d
        rorx    $3, %r8, %r9
        mulx    %r8, %r10, %r11
6:      movl    $12 * 1024 * 1024, %ecx
        movl    $0x200000, %esi
        movl    $0x300001, %edi
        xorl    %edx, %edx
7:      movzbl  (%rsi,%rdx), %eax
        movb    %al, (%rdi,%rdx)
        incl    %edx
        andl    $0x7ffff, %edx
        decl    %ecx
        jnz     7b
        movb    $0x10, %al
        outb    %al, $0xf4
5:      hlt
        jmp     5b
        .balign 8, 0xcc                 # int3, since the no-ops of `as` differ between releases
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 32-bit code
        .quad   0x00cf93000000ffff      # data
        .quad   0x00af9b000000ffff      # 64-bit code
gdtr:   .word   gdtr - gdt - 1
        .long   gdt - rom + 0xfffff000
        .org    0xff0
        .code16
reset:  jmp     start16                 # the reset vector, 0xfffffff0
        .org    0x1000
