// The player: plays a tape of system calls. It knows nothing of containers; src/runtime/tape.ts writes the tapes and says what each step is for.
//
// Descriptors at its start: TAPE_FD the tape (a memfd, mapped privately), REPORT_FD a pipe for records, TIMING_FD (where the header's
// flag TIMED is set) a memfd that receives two CLOCK_MONOTONIC stamps an instruction. All other descriptors are the tape's business.
//
// A program of its own can be made of the player (src/runtime/init.ts): e_flags of its ELF header, which x86 does not use, then tells how many pages of
// tape a segment has put at OWN_TAPE, and the tape learns from the stack pointer what the program was called with.
//
// It can also be linked before another program (NEXT, where that one starts; ENTRY, what the linker is to take for the start): a tape that comes to its end
// leaves the process to that program, as the kernel left it to the tape; without a tape the program is all there is.
//
// A tape: struct header, struct instr[count], uint32_t relocs[relocs] (offsets in the data of words to which the data's address is added), then
// from `data` to the end of the file, which is a whole number of pages, the data. Behind the data lies a page without any access, so
// that the kernel answers EFAULT where a step would write beyond. The tape is checked as a whole before its first step. A step that fails ends
// the process: a record (tag 0, index, errno) on REPORT_FD, exit status 125. A tape that is not valid: index 0xffffffff. No memory is
// allocated once it plays. Built without a C library: a player that stays on as a container's keeper costs a few pages.

#include <asm/unistd.h>
#include <linux/errno.h>
#include <stddef.h>
#include <stdint.h>

enum { TAPE_FD = 60, REPORT_FD = 61, TIMING_FD = 62, MAGIC = 0x5041544a, VERSION = 1, TIMED = 1, PAGE = 4096, MAX_TAPE = 64 << 20, STATUS_FAILED = 125, OWN_TAPE = 0x10000000, E_FLAGS = 48 };
// PLAY goes on with the tape of a descriptor in place of this one, whose memory stays as it is.
enum op { SYSCALL, JUMP, IF, ALU, FAIL, DECIMAL, PLAY, OPS };
// What an errno does: end the player; nothing; nothing or a jump where it is one of `errnos`, else end the player; a jump.
enum policy { POLICY_FAIL, POLICY_IGNORE, POLICY_IGNORE_LISTED, POLICY_JUMP_LISTED, POLICY_JUMP, POLICIES };
// An argument: itself, the address of data at that offset, or the word at that offset (the 32-bit one sign-extended).
enum kind { IMMEDIATE, ADDRESS, WORD64, WORD32, KINDS };
enum store { STORE_NONE, STORE_64, STORE_32, STORES };
enum compare { EQ, NE, LT, GE, BITS, COMPARES };
enum alu { ADD, SUB, AND, OR, SHL, SHR, ALUS };

struct header {
  uint32_t magic, version, count, relocs, data, flags, stack, reserved;  // stack: offset of the word that receives the stack pointer, or 0
};

struct instr {
  uint8_t op, policy, store_kind, reserved;
  uint32_t nr, target, store;  // system call, comparison or operation; index to jump to; offset of the word that receives the result
  uint8_t kind[6], retry, reserved2, errnos[8];  // retry: the errno on which the step is played again (EINTR, EAGAIN)
  uint64_t args[6];
};

struct record {
  uint32_t tag, index;
  int64_t value;
};

_Static_assert(sizeof(struct header) == 32 && sizeof(struct instr) == 80 && sizeof(struct record) == 16, "the layout is tape.ts's");

static long call(long nr, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
}

static _Noreturn void leave(int status) {
  for (;;) call(__NR_exit_group, status, 0, 0, 0, 0, 0);
}

static _Noreturn void fail(uint32_t index, long error) {
  struct record r = {0, index, error};
  call(__NR_write, REPORT_FD, (long)&r, sizeof r, 0, 0, 0);
  leave(STATUS_FAILED);
}

static _Noreturn void invalid(void) {
  fail(0xffffffff, EINVAL);
}

struct tape {
  const struct instr *instrs;
  uint32_t count;
  unsigned char *data;
  uint64_t size;  // of the data
  uint64_t (*stamps)[2];
};

// Words in the data need not be aligned: structures of the kernel have 32-bit members anywhere.
static uint64_t load64(const unsigned char *p) {
  uint64_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static uint64_t load32(const unsigned char *p) {
  int32_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return (uint64_t)(int64_t)v;
}

static void store64(unsigned char *p, uint64_t v) {
  __builtin_memcpy(p, &v, sizeof v);
}

static void store32(unsigned char *p, uint64_t v) {
  uint32_t w = (uint32_t)v;
  __builtin_memcpy(p, &w, sizeof w);
}

static int inside(const struct tape *t, uint64_t offset, uint64_t length) {
  return offset <= t->size && length <= t->size - offset;
}

enum { DIGITS = 21 };  // of the longest decimal, and its NUL

static int valid(const struct tape *t, const struct instr *i) {
  if (i->op >= OPS || i->policy >= POLICIES || i->store_kind >= STORES || i->target > t->count) return 0;
  if (i->store_kind != STORE_NONE && !inside(t, i->store, i->store_kind == STORE_64 ? 8 : 4)) return 0;
  if ((i->op == IF && i->nr >= COMPARES) || (i->op == ALU && i->nr >= ALUS)) return 0;
  for (int a = 0; a < 6; a++) {
    if (i->kind[a] >= KINDS) return 0;
    if (i->kind[a] == IMMEDIATE) continue;
    if (!inside(t, i->args[a], i->kind[a] == ADDRESS ? 1 : i->kind[a] == WORD64 ? 8 : 4)) return 0;
  }
  if (i->op == DECIMAL && (i->kind[1] != ADDRESS || !inside(t, i->args[1], DIGITS))) return 0;
  return 1;
}

extern const unsigned char __ehdr_start[];  // by the linker

// Maps the tape between pages without access, checks all of it, applies the relocations. `own`: pages of a tape that is part of the program.
static void load(struct tape *t, const void *stack, uint32_t fd, uint64_t own) {
  long end = own ? (long)own * PAGE : call(__NR_lseek, fd, 0, 2, 0, 0, 0);
  if (end < (long)sizeof(struct header) || end > MAX_TAPE || end % PAGE) invalid();
  uint64_t size = (uint64_t)end;
  const long none = 0, read_write = 3, private_anonymous = 0x22, private_fixed = 0x12, shared = 1;
  long base = own ? OWN_TAPE : call(__NR_mmap, 0, (long)(size + 2 * PAGE), none, private_anonymous, -1, 0);
  if (base < 0 && base > -PAGE) fail(0xffffffff, -base);
  if (own) call(__NR_mmap, base + (long)size, PAGE, none, private_fixed | private_anonymous, -1, 0);
  else base = call(__NR_mmap, base + PAGE, (long)size, read_write, private_fixed, fd, 0);
  if (base < 0 && base > -PAGE) fail(0xffffffff, -base);

  unsigned char *file = (unsigned char *)base;
  struct header h;
  __builtin_memcpy(&h, file, sizeof h);
  uint64_t relocs = sizeof h + (uint64_t)h.count * sizeof(struct instr), relocs_end = relocs + (uint64_t)h.relocs * 4;
  if (h.magic != MAGIC || h.version != VERSION || h.flags > TIMED || h.data % 16 || h.data > size || relocs_end > h.data) invalid();
  t->instrs = (const struct instr *)(file + sizeof h);
  t->count = h.count;
  t->data = file + h.data;
  t->size = size - h.data;
  t->stamps = NULL;
  for (uint32_t i = 0; i < t->count; i++)
    if (!valid(t, &t->instrs[i])) invalid();
  for (uint32_t i = 0; i < h.relocs; i++) {
    uint64_t at = load32(file + relocs + 4 * (uint64_t)i) & 0xffffffff;
    if (!inside(t, at, 8)) invalid();
    store64(t->data + at, load64(t->data + at) + (uint64_t)(uintptr_t)t->data);
  }
  if (h.stack) {
    if (!inside(t, h.stack, 8)) invalid();
    store64(t->data + h.stack, (uint64_t)(uintptr_t)stack);
  }
  if (h.flags & TIMED) {
    long stamps = call(__NR_mmap, 0, (long)(t->count * sizeof *t->stamps), read_write, shared, TIMING_FD, 0);
    if (stamps < 0 && stamps > -PAGE) fail(0xffffffff, -stamps);
    t->stamps = (uint64_t(*)[2])stamps;
    call(__NR_close, TIMING_FD, 0, 0, 0, 0, 0);
  }
  call(__NR_close, fd, 0, 0, 0, 0, 0);
}

static uint64_t argument(const struct tape *t, const struct instr *i, int a) {
  switch (i->kind[a]) {
    case ADDRESS: return (uint64_t)(uintptr_t)(t->data + i->args[a]);
    case WORD64: return load64(t->data + i->args[a]);
    case WORD32: return load32(t->data + i->args[a]);
    default: return i->args[a];
  }
}

static uint64_t compute(uint32_t operation, uint64_t a, uint64_t b) {
  switch (operation) {
    case ADD: return a + b;
    case SUB: return a - b;
    case AND: return a & b;
    case OR: return a | b;
    case SHL: return b < 64 ? a << b : 0;
    default: return b < 64 ? a >> b : 0;
  }
}

static int holds(uint32_t comparison, uint64_t a, uint64_t b) {
  switch (comparison) {
    case EQ: return a == b;
    case NE: return a != b;
    case LT: return (int64_t)a < (int64_t)b;
    case GE: return (int64_t)a >= (int64_t)b;
    default: return (a & b) != 0;
  }
}

static void decimal(unsigned char *to, uint64_t value) {
  unsigned char digits[DIGITS];
  int n = 0;
  do digits[n++] = (unsigned char)('0' + value % 10);
  while (value /= 10);
  while (n) *to++ = digits[--n];
  *to = 0;
}

static int listed(const struct instr *i, long error) {
  for (int e = 0; e < 8; e++)
    if (i->errnos[e] && i->errnos[e] == error) return 1;
  return 0;
}

static uint64_t stamp(void) {
  int64_t time[2] = {0, 0};
  call(__NR_clock_gettime, 1, (long)time, 0, 0, 0, 0);
  return (uint64_t)time[0] * 1000000000u + (uint64_t)time[1];
}

// Plays one instruction; gives the index of the next.
static uint32_t step(const struct tape *t, uint32_t index) {
  const struct instr *i = &t->instrs[index];
  uint32_t next = index + 1;
  uint64_t a[6];
  for (int n = 0; n < 6; n++) a[n] = argument(t, i, n);
  int64_t result = 0;
  switch (i->op) {
    case SYSCALL:
      result = call((long)i->nr, (long)a[0], (long)a[1], (long)a[2], (long)a[3], (long)a[4], (long)a[5]);
      if (result < 0 && result == -(int64_t)i->retry) return index;
      if (result < 0 && result > -PAGE) {
        switch (i->policy) {
          case POLICY_IGNORE: break;
          case POLICY_IGNORE_LISTED:
            if (!listed(i, -result)) fail(index, -result);
            break;
          case POLICY_JUMP_LISTED:
            if (!listed(i, -result)) fail(index, -result);
            next = i->target;
            break;
          case POLICY_JUMP: next = i->target; break;
          default: fail(index, -result);
        }
      }
      break;
    case JUMP: next = i->target; break;
    case IF:
      if (holds(i->nr, a[0], a[1])) next = i->target;
      break;
    case ALU: result = (int64_t)compute(i->nr, a[0], a[1]); break;
    case DECIMAL: decimal((unsigned char *)(uintptr_t)a[1], a[0]); break;
    default: fail(index, (long)a[0]);
  }
  if (i->store_kind == STORE_64) store64(t->data + i->store, (uint64_t)result);
  if (i->store_kind == STORE_32) store32(t->data + i->store, (uint64_t)result);
  return next;
}

#ifndef NEXT
#define ENTRY "_start"
static _Noreturn void end(const void *stack) {
  (void)stack;
  leave(0);
}
#else
static _Noreturn void end(const void *stack) {
  __asm__ volatile("mov %0, %%rsp\n  xor %%edx, %%edx\n  xor %%ebp, %%ebp\n  jmp " NEXT : : "r"(stack) : "rdx");
  __builtin_unreachable();
}
#endif

static _Noreturn void play(const void *stack) {
  struct tape t = {0};
  uint64_t own = load32(__ehdr_start + E_FLAGS) & 0xffffffff;
#ifdef NEXT
  if (!own) end(stack);
#endif
  load(&t, stack, TAPE_FD, own);
  uint32_t index = 0;
  while (index < t.count) {
    if (t.instrs[index].op == PLAY) {
      load(&t, stack, (uint32_t)argument(&t, &t.instrs[index], 0), 0);
      index = 0;
      continue;
    }
    if (t.stamps) t.stamps[index][0] = stamp();
    uint32_t next = step(&t, index);
    if (t.stamps) t.stamps[index][1] = stamp();
    index = next;
  }
  end(stack);
}

#ifdef HOSTED  // for sanitizers, which need a C library
int main(void) {
  play(0);
}
#else
// The kernel enters with an aligned stack and no return address, which is not how a function expects it.
_Noreturn void enter(const void *stack) __attribute__((used));
void enter(const void *stack) {
  play(stack);
}
__asm__(".globl " ENTRY "\n" ENTRY ":\n  mov %rsp, %rdi\n  xor %ebp, %ebp\n  call enter\n");
#endif
