// spawn: vfork and exec with a descriptor map, for both bindings. One block of memory says what is wanted and receives the pidfd:
// argv and envp are addresses of NULL-ended arrays of strings. The i-th descriptor of the map becomes descriptor i of the child (-1: closed);
// everything above is closed. flags: 1 = setsid, 2 = CLONE_PARENT, 4 = ahead: the child gets to its exec while the caller goes on, who leaves block, argv
// and envp where they are until `alive` is 0; then `error` says why it could not. `stack`, which is 0 at first, serves the block's next child too: a block
// is kept for good. The child has no signal blocked and none ignored.

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPAWN_STACK = 64 * 1024, MAX_FDS = 64 };

struct spawn {
  char **argv, **envp;
  int32_t exefd, flags, pidfd, error, n, alive;
  char *stack;
  int32_t map[MAX_FDS];
};

// The child shares the caller's memory, errno with it, and so uses nothing of the C library.
static long raw(long nr, long a, long b, long c, long d, long e) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return result;
}

// Comes back with an errno only.
static long spawn_exec(const struct spawn *s) {
  const uint64_t none[4] = {0};  // the kernel's struct sigaction: SIG_DFL, no flags, no restorer, an empty mask; or a mask
  int n = s->n, moved[MAX_FDS];
  long error = 0, exe = raw(SYS_fcntl, s->exefd, F_DUPFD_CLOEXEC, 2 * MAX_FDS, 0, 0);
  if (exe < 0) return -exe;
  for (int sig = 1; sig < 65; sig++) raw(SYS_rt_sigaction, sig, (long)none, 0, 8, 0);
  for (int i = 0; i < n; i++) {
    moved[i] = s->map[i] < 0 ? -1 : (int)raw(SYS_fcntl, s->map[i], F_DUPFD_CLOEXEC, MAX_FDS, 0, 0);
    if (s->map[i] >= 0 && moved[i] < 0) return -moved[i];
  }
  for (int i = 0; i < n; i++)
    if (moved[i] < 0) raw(SYS_close, i, 0, 0, 0, 0);
    else if ((error = raw(SYS_dup3, moved[i], i, 0, 0, 0)) < 0) return -error;
  if (exe > n) raw(SYS_close_range, n, exe - 1, 0, 0, 0);
  raw(SYS_close_range, exe + 1, ~0U, 0, 0, 0);
  if (s->flags & 1) raw(SYS_setsid, 0, 0, 0, 0, 0);
  raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)none, 0, 8, 0);
  return -raw(SYS_execveat, exe, (long)"", (long)s->argv, (long)s->envp, AT_EMPTY_PATH);
}

static int spawn_child(void *arg) {
  struct spawn *s = arg;
  s->error = (int)spawn_exec(s);
  return 127;
}

// The pid, or -errno, also where an exec that was waited for failed. `s` has been checked to be as large as a struct spawn.
static long spawn_start(struct spawn *s) {
  if (s->n < 0 || s->n > MAX_FDS) return -EINVAL;
  if (!s->stack) s->stack = mmap(NULL, SPAWN_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (s->stack == MAP_FAILED) return s->stack = NULL, -errno;
  bool ahead = s->flags & 4;
  sigset_t all, old;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  s->error = 0;
  s->alive = 1;  // cleared by the kernel once the child has memory of its own, or none
  int how = CLONE_VM | (ahead ? 0 : CLONE_VFORK) | CLONE_PIDFD | CLONE_CHILD_CLEARTID | SIGCHLD | (s->flags & 2 ? CLONE_PARENT : 0);
  int pid = clone(spawn_child, s->stack + SPAWN_STACK, how, s, &s->pidfd, NULL, &s->alive);
  int error = pid < 0 ? errno : ahead ? 0 : s->error;
  sigprocmask(SIG_SETMASK, &old, NULL);
  if (pid < 0) s->alive = 0;
  if (pid > 0 && error) {
    waitpid(pid, NULL, 0);
    close(s->pidfd);
  }
  return error ? -error : pid;
}
