// spawn: vfork and exec with a descriptor map, for both bindings. One block of memory says what is wanted and receives the pidfd:
// argv and envp are addresses of NULL-ended arrays of strings. The i-th descriptor of the map becomes descriptor i of the child (-1: closed);
// everything above is closed. flags: 1 = setsid, 2 = CLONE_PARENT. The child has no signal blocked and none ignored.

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPAWN_STACK = 64 * 1024, MAX_FDS = 64 };

struct spawn {
  char **argv, **envp;
  int32_t exefd, flags, pidfd, error, n, map[MAX_FDS];
};

static int spawn_child(void *arg) {
  struct spawn *s = arg;
  int n = s->n, moved[MAX_FDS], exe = fcntl(s->exefd, F_DUPFD_CLOEXEC, 2 * MAX_FDS);
  for (int sig = 1; sig < 65; sig++) signal(sig, SIG_DFL);
  for (int i = 0; i < n; i++) {
    moved[i] = s->map[i] < 0 ? -1 : fcntl(s->map[i], F_DUPFD_CLOEXEC, MAX_FDS);
    if (s->map[i] >= 0 && moved[i] < 0) goto failed;
  }
  if (exe < 0) goto failed;
  for (int i = 0; i < n; i++)
    if (moved[i] < 0) close(i);
    else if (dup2(moved[i], i) < 0) goto failed;
  if (exe > n) syscall(SYS_close_range, n, exe - 1, 0);
  syscall(SYS_close_range, exe + 1, ~0U, 0);
  if (s->flags & 1) setsid();
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  syscall(SYS_execveat, exe, "", s->argv, s->envp, AT_EMPTY_PATH);
failed:
  s->error = errno;
  _exit(127);
}

// The pid, or -errno, also where the exec failed. `s` has been checked to be as large as a struct spawn.
static long spawn_start(struct spawn *s) {
  if (s->n < 0 || s->n > MAX_FDS) return -EINVAL;
  char *stack = mmap(NULL, SPAWN_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return -errno;
  sigset_t all, old;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  s->error = 0;
  int how = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | (s->flags & 2 ? CLONE_PARENT : 0);
  int pid = clone(spawn_child, stack + SPAWN_STACK, how, s, &s->pidfd);
  int error = pid < 0 ? errno : s->error;
  sigprocmask(SIG_SETMASK, &old, NULL);
  munmap(stack, SPAWN_STACK);
  if (pid > 0 && s->error) {
    waitpid(pid, NULL, 0);
    close(s->pidfd);
  }
  return error ? -error : pid;
}
