/* What the plugin's parts share, and what they use of QEMU's API: no Debian package has qemu-plugin.h. */
#ifndef ACON_PLUGIN_H
#define ACON_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define KERNEL_BASE 0xffff800000000000u
#define MODULES_BASE 0xffffffffa0000000u
#define MODULES_END 0xffffffffff000000u

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;

typedef uint64_t qemu_plugin_id_t;
typedef struct {
	const char *target_name;
	struct {
		int min, cur;
	} version;
	bool system_emulation;
} qemu_info_t;
typedef void (*exec_cb)(unsigned int vcpu, void *data);

#define EXPORT __attribute__((visibility("default")))

#if API >= 7
typedef void (*trans_cb)(struct qemu_plugin_tb *, void *data);
typedef void (*exit_cb)(void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, trans_cb cb, void *data);
#else
typedef void (*trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*exit_cb)(qemu_plugin_id_t, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, trans_cb cb);
#endif
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb cb, int flags, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, exit_cb cb, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn); /* where it is in the host's memory */
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
typedef void (*mem_cb)(unsigned int vcpu, uint32_t info, uint64_t address, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_cb cb, int flags, int access, void *data);
#if API >= 3
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t length);
#else
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#endif
#if API >= 2
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn, int op, qemu_plugin_u64 entry,
							 uint64_t number);
void qemu_plugin_u64_add(qemu_plugin_u64 entry, unsigned int vcpu, uint64_t number);
uint64_t qemu_plugin_u64_sum(qemu_plugin_u64 entry);
#else
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op, void *counter, uint64_t number);
#endif

enum { ADD_U64 = 0, NO_REGS = 0, WRITE = 2, READ_WRITE = 3 }; /* QEMU 7.2 never calls what asks for reads alone */

/* plugin.c: the addresses at which functions start, and the instructions counted of one. */
extern uint64_t *starts;
extern size_t starts_count;
uint64_t counted(size_t index);
void read_bytes(const struct qemu_plugin_insn *insn, uint8_t *bytes, size_t size);

/* calls.c: the call tree. */
bool calls_begin(const char *kinds_path);
void calls_instrument(struct qemu_plugin_insn *insn, size_t index, bool arrives);
void calls_write(FILE *out);

/* programs.c: user space by page of a file, modules by address. */
struct user_page {
	const unsigned char *start;
	uint64_t hash;
};
bool programs_begin(void);
void programs_instrument(struct qemu_plugin_insn *insn, uint64_t address, struct user_page *page);
void programs_take(void);
void programs_write(FILE *out);

#endif
