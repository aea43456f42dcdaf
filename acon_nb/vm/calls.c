/*
 * The call tree of a guest's kernel: what each function executed itself under each chain of callers.
 *
 *   -plugin counts.so,starts=FILE,out=FILE,kinds=FILE
 *
 * kinds: a byte for each address of `starts`, the bits of `enum kind`. In front of each mark `out` then has
 *
 *   node PARENT NUMBER        a new node, numbered from 1 in order: the function NUMBER, called by PARENT (0: the root)
 *   self NODE COUNT           instructions since the last mark
 *   returns COUNT UNMATCHED   how many there were, and how many returned to what no call or entry had left
 *
 * Behind the numbers of `starts` come INTERRUPTS, the parent of what interrupts ran, and FOLDED, the parent of functions
 * under chains for which there was no room.
 *
 * A callback at each block, and where a block runs on into another function, sees every arrival in a function. What was
 * counted since the last arrival is of one function and goes to one node, so the nodes of a function always add up to
 * its count. Which node it is comes from a shadow stack for each task: a call leaves the address behind it there, a
 * return takes all down to the one to which it did return. So return thunks need no care, and a retpoline is a jump.
 *
 * Memory callbacks tell only the task, by its stack. Those of calls would come for the pushes of an interrupt, too:
 * QEMU 7.2 does not disable them when a block is left.
 */
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#ifndef NODES_LIMIT
#define NODES_LIMIT (1u << 20) /* 24 MiB; a boot has some 100,000 */
#endif
#ifndef DEEPEST_NODE
#define DEEPEST_NODE 250 /* functions of a chain; a boot has 45 */
#endif
#define TABLE_SHIFT 21
#define FRAMES_LIMIT 1024
#define TASKS_SHIFT 14
#define TASKS_SIZE (1u << TASKS_SHIFT)
#define STACK_SHIFT 14 /* THREAD_SIZE: a stack of the kernel is aligned to it */
#define NO_FUNCTION UINT32_MAX

enum kind {
	ENTRY = 1,	/* the CPU enters the kernel here: exception, system call, interrupt */
	INTERRUPT = 2,	/* ... which has nothing to do with what it interrupts */
	STUBS = 4,	/* ... at any of its addresses */
	SWITCH = 8,	/* changes from one task's stack to another's */
	THUNK = 16,	/* an indirect jump or a return: what follows is of the caller */
};

enum pending { NOTHING, CALLED, RETURNED, LEFT };

enum { ROOT, USER, INTERRUPTS, FOLDED, FIRST_NODES };

struct node {
	uint64_t self;
	uint32_t function, parent, last_child;
	uint32_t depth;
};

struct frame {
	uint32_t back;		/* low half of the return address */
	uint32_t node;
	enum pending pending;	/* of what was interrupted */
	bool entry;
};

struct task {
	uint64_t stack;
	struct frame *frames;
	uint32_t depth, room, node;
};

static uint8_t *kinds;
static struct node *nodes;
static uint32_t nodes_count, nodes_room, nodes_written = 1;
static uint32_t *table; /* of nodes by parent and function */
static struct task *tasks;
static uint32_t tasks_count;
static struct task now;
static uint32_t function = NO_FUNCTION; /* of now.node */
static uint64_t base;			/* its count when it was arrived at */
static uint64_t *user_bases; /* counts of the functions of user space when they were written */
static size_t user_count;
static uint64_t returns, unmatched, switch_stack;
static uint32_t behind_iret;
static enum pending pending;

static void *must(void *memory)
{
	if (!memory) {
		perror("counts: call tree");
		exit(1);
	}
	return memory;
}

static uint32_t add_node(uint32_t parent, uint32_t of)
{
	if (nodes_count == nodes_room) {
		nodes_room = nodes_room ? 2 * nodes_room : 1 << 12;
		nodes = must(realloc(nodes, nodes_room * sizeof(*nodes)));
	}
	nodes[nodes_count] = (struct node){ .function = of, .parent = parent, .depth = nodes[parent].depth + 1 };
	return nodes_count++;
}

static uint32_t *find_child(uint32_t parent, uint32_t of)
{
	uint64_t hash = ((uint64_t)parent << 32 | of) * 0x9e3779b97f4a7c15u;
	uint32_t at = hash >> (64 - TABLE_SHIFT);

	while (table[at] && (nodes[table[at]].parent != parent || nodes[table[at]].function != of))
		at = (at + 1) % (1u << TABLE_SHIFT);
	return &table[at];
}

/* The node of a function that is called at `parent`. One that calls itself stays at its node. */
static uint32_t child(uint32_t parent, uint32_t of)
{
	uint32_t last = nodes[parent].last_child;
	uint32_t *slot;

	if (nodes[parent].function == of)
		return parent;
	if (last && nodes[last].function == of)
		return last;
	slot = find_child(parent, of);
	if (!*slot && (nodes_count >= NODES_LIMIT || nodes[parent].depth >= DEEPEST_NODE)) {
		parent = FOLDED;
		slot = find_child(parent, of);
	}
	if (!*slot)
		*slot = add_node(parent, of);
	nodes[parent].last_child = *slot;
	return *slot;
}

/* User space is counted on its own: its blocks have no callbacks. */
static void attribute(void)
{
	uint64_t count;

	if (function == 0 || function >= starts_count)
		return;
	count = counted(function);
	nodes[now.node].self += count - base;
	base = count;
}

static void go_to(uint32_t node)
{
	attribute();
	now.node = node;
	if (function != nodes[node].function) {
		function = nodes[node].function;
		base = function < starts_count ? counted(function) : 0;
	}
}

static struct frame *top(void)
{
	return now.depth ? &now.frames[now.depth - 1] : NULL;
}

static void push(struct frame frame)
{
	if (now.depth == FRAMES_LIMIT) {
		now.depth /= 2;
		memmove(now.frames, now.frames + now.depth, now.depth * sizeof(frame));
	}
	if (now.depth == now.room) {
		now.room = now.room ? 2 * now.room : 32;
		now.frames = must(realloc(now.frames, now.room * sizeof(frame)));
	}
	now.frames[now.depth++] = frame;
}

static bool is_thunk(uint32_t node)
{
	return nodes[node].function < starts_count && kinds[nodes[node].function] & THUNK;
}

/* Where a jump leads: back to a function that is open since the last call, else as if it were called. */
static uint32_t jump(uint32_t to)
{
	uint32_t caller = now.depth ? top()->node : ROOT, from = now.node;

	if (function >= starts_count)
		return child(ROOT, to);
	for (uint32_t node = now.node; node >= FIRST_NODES; node = nodes[node].parent) {
		if (nodes[node].function == to)
			return node;
		if (node == caller)
			break;
	}
	while (is_thunk(from))
		from = nodes[from].parent;
	return child(from, to);
}

/* The depth of the frame whose call left this address, or -1. */
static int64_t left_at(uint32_t address)
{
	for (int64_t i = (int64_t)now.depth - 1; i >= 0 && !now.frames[i].entry; i--) {
		if (now.frames[i].back == address)
			return i;
	}
	return -1;
}

static void enter(uint32_t to)
{
	uint32_t caller = kinds[to] & INTERRUPT ? INTERRUPTS : now.node;

	push((struct frame){ .node = now.node, .pending = pending, .entry = true });
	pending = NOTHING;
	go_to(child(caller, to));
}

/* The end of what an entry began; without one a new program begins. */
static void leave(uint32_t address)
{
	pending = NOTHING;
	if (address == behind_iret)
		return; /* sync_core() */
	while (now.depth) {
		struct frame *frame = &now.frames[--now.depth];

		if (frame->entry) {
			pending = frame->pending;
			go_to(frame->node);
			return;
		}
	}
	go_to(USER);
}

static void arrive(uint32_t to, uint32_t address)
{
	int64_t depth;

	if (pending == LEFT)
		leave(address);
	depth = pending == RETURNED ? left_at(address) : -1;
	if (depth < 0 && kinds[to] & ENTRY && (kinds[to] & STUBS || address == (uint32_t)starts[to])) {
		enter(to);
		return;
	}
	if (function == 0) { /* back in the kernel from an entry that was not seen */
		unmatched++;
		go_to(ROOT);
	}
	if (depth >= 0) {
		now.depth = (uint32_t)depth;
		go_to(now.frames[depth].node);
	} else if (pending == RETURNED) {
		if (now.depth && !top()->entry && is_thunk(top()->node)) {
			now.depth--; /* a retpoline: it has called itself and replaced the return address */
		} else {
			unmatched++;
			if (!now.depth)
				go_to(ROOT);
		}
	}
	go_to(pending == CALLED ? child(now.node, to) : jump(to));
	pending = NOTHING;
}

static void at_arrival(unsigned int vcpu, void *data)
{
	uint32_t to = (uintptr_t)data >> 32;

	(void)vcpu;
	if (to != function || pending)
		arrive(to, (uint32_t)(uintptr_t)data);
}

static void at_call(unsigned int vcpu, void *data)
{
	(void)vcpu;
	push((struct frame){ .back = (uint32_t)(uintptr_t)data, .node = now.node });
	pending = CALLED;
}

static void at_return(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	returns++;
	pending = RETURNED;
}

static void at_leaving(unsigned int vcpu, void *data)
{
	(void)vcpu;
	behind_iret = (uint32_t)(uintptr_t)data;
	pending = LEFT;
}

/* The task on a stack. With too many of them all are forgotten; they begin anew where they continue. */
static struct task *task_of(uint64_t stack)
{
	uint64_t key = stack >> STACK_SHIFT;
	uint32_t at = (key * 0x9e3779b97f4a7c15u) >> (64 - TASKS_SHIFT);

	if (tasks_count >= TASKS_SIZE / 4 * 3) {
		for (uint32_t i = 0; i < TASKS_SIZE; i++)
			free(tasks[i].frames);
		memset(tasks, 0, TASKS_SIZE * sizeof(*tasks));
		tasks_count = 0;
	}
	while (tasks[at].stack && tasks[at].stack >> STACK_SHIFT != key)
		at = (at + 1) % TASKS_SIZE;
	tasks_count += !tasks[at].stack;
	return &tasks[at];
}

static void at_switch_push(unsigned int vcpu, uint32_t info, uint64_t stack, void *data)
{
	(void)vcpu;
	(void)info;
	(void)data;
	switch_stack = stack;
}

/* A task continues at the stack pointer with which it was left; any other on its stack is a new task. */
static void at_switch_pop(unsigned int vcpu, uint32_t info, uint64_t stack, void *data)
{
	uint32_t to = (uint32_t)(uintptr_t)data;
	struct task *task;

	(void)vcpu;
	(void)info;
	if (switch_stack && stack != switch_stack) {
		attribute();
		task = task_of(switch_stack);
		free(task->frames);
		*task = now;
		task->stack = switch_stack;
		task = task_of(stack);
		now = *task;
		task->frames = NULL;
		task->room = 0;
		if (task->stack != stack) {
			task->stack = stack;
			now.depth = 0;
			now.node = child(ROOT, to);
		}
	}
	switch_stack = 0;
}

static size_t skip_prefixes(const uint8_t *bytes, size_t size)
{
	static const uint8_t prefixes[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3 };
	size_t i = 0;

	while (i + 1 < size && memchr(prefixes, bytes[i], sizeof(prefixes)))
		i++;
	if (i + 1 < size && bytes[i] >> 4 == 4) /* REX */
		i++;
	return i;
}

/* `index` is the function of a kernel's instruction; `arrives`: the one before may have been of another. */
void calls_instrument(struct qemu_plugin_insn *insn, size_t index, bool arrives)
{
	uint64_t address = qemu_plugin_insn_vaddr(insn);
	size_t size = qemu_plugin_insn_size(insn), i;
	void *behind = (void *)(uintptr_t)(uint32_t)(address + size);
	uint8_t bytes[16] = { 0 };

	if (arrives)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, at_arrival, NO_REGS,
						       (void *)(uintptr_t)(index << 32 | (uint32_t)address));
	read_bytes(insn, bytes, size < sizeof(bytes) ? size : sizeof(bytes) - 1);
	i = skip_prefixes(bytes, size);
	if (kinds[index] & SWITCH) {
		void *here = (void *)(uintptr_t)index;

		if (bytes[i] >> 3 == 0x50 >> 3 || bytes[i] == 0x9c)
			qemu_plugin_register_vcpu_mem_cb(insn, at_switch_push, NO_REGS, WRITE, here);
		else if (bytes[i] >> 3 == 0x58 >> 3 || bytes[i] == 0x9d)
			qemu_plugin_register_vcpu_mem_cb(insn, at_switch_pop, NO_REGS, READ_WRITE, here);
	} else if (bytes[i] == 0xe8 || (bytes[i] == 0xff && (bytes[i + 1] >> 3 & 7) == 2)) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, at_call, NO_REGS, behind);
	} else if (bytes[i] == 0xc3 || bytes[i] == 0xc2 || bytes[i] == 0xcb || bytes[i] == 0xca) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, at_return, NO_REGS, NULL);
	} else if (bytes[i] == 0xcf || (bytes[i] == 0x0f && (bytes[i + 1] == 0x07 || bytes[i + 1] == 0x35))) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, at_leaving, NO_REGS, behind);
	}
}

void calls_write(FILE *out)
{
	attribute();
	for (uint32_t i = 0; i < user_count; i++) {
		uint64_t count = counted(i);
		uint32_t node = count == user_bases[i] ? USER : child(USER, i);

		nodes[node].self += count - user_bases[i];
		user_bases[i] = count;
	}
	for (; nodes_written < nodes_count; nodes_written++)
		fprintf(out, "node %u %u\n", nodes[nodes_written].parent, nodes[nodes_written].function);
	for (uint32_t i = 0; i < nodes_count; i++) {
		if (nodes[i].self)
			fprintf(out, "self %u %llu\n", i, (unsigned long long)nodes[i].self);
		nodes[i].self = 0;
	}
	fprintf(out, "returns %llu %llu\n", (unsigned long long)returns, (unsigned long long)unmatched);
}

bool calls_begin(const char *kinds_path)
{
	FILE *file = fopen(kinds_path, "rb");

	while (user_count < starts_count && starts[user_count] < KERNEL_BASE)
		user_count++;
	user_bases = calloc(user_count, sizeof(*user_bases));
	kinds = calloc(starts_count, 1);
	table = calloc(1u << TABLE_SHIFT, sizeof(*table));
	tasks = calloc(TASKS_SIZE, sizeof(*tasks));
	if (!file || !user_bases || !kinds || !table || !tasks || fread(kinds, 1, starts_count, file) != starts_count)
		return false;
	fclose(file);
	nodes_room = 1 << 12;
	nodes = must(calloc(nodes_room, sizeof(*nodes)));
	nodes[ROOT].function = NO_FUNCTION;
	nodes_count = 1;
	for (uint32_t of = 0; nodes_count < FIRST_NODES; of = (uint32_t)starts_count + nodes_count - INTERRUPTS)
		*find_child(ROOT, of) = add_node(ROOT, of);
	return true;
}
