// The floor under every runtime: what the kernel takes to make a container of a busybox bundle and to take it down again, and nothing else.
//   floor ROOTFS [net]        prints nothing; ends as the program in it
// Bench only: compiled by bench/runtime.ts.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(long result, const char *what) {
  if (result >= 0) return;
  perror(what);
  _exit(125);
}

static void place(const char *type, const char *at, unsigned long flags, const char *data) {
  mkdir(at, 0755);
  must(mount(type, at, type, flags, data), at);
}

static int child(void *root) {
  static const struct { const char *name; int minor; } devices[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}, {"tty", 0}};
  const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV;
  must(sethostname("floor", 5), "sethostname");
  must(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "slave");
  must(mount(root, root, NULL, MS_BIND | MS_REC, NULL), "bind");
  must(chdir(root), "chdir");
  place("proc", "proc", safe, NULL);
  place("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
  place("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
  place("tmpfs", "dev/shm", safe, "mode=1777,size=65536k");
  place("mqueue", "dev/mqueue", safe, NULL);
  place("sysfs", "sys", safe | MS_RDONLY, NULL);
  umask(0);
  for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++) {
    char name[32];
    snprintf(name, sizeof name, "dev/%s", devices[i].name);
    must(mknod(name, S_IFCHR | 0666, makedev(devices[i].minor ? 1 : 5, devices[i].minor)), name);
  }
  must(mount(NULL, root, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "read-only");
  must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
  must(umount2(".", MNT_DETACH), "umount");
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  char *argv[] = {"true", NULL}, *envp[] = {"PATH=/bin", NULL};
  execve("/bin/true", argv, envp);
  perror("execve");
  return 126;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  static char stack[64 * 1024] __attribute__((aligned(16)));
  int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | SIGCHLD, status = 0;
  if (argc > 2 && !strcmp(argv[2], "net")) flags |= CLONE_NEWNET;
  char *root = realpath(argv[1], NULL);
  int pid = clone(child, stack + sizeof stack, flags, root);
  must(pid, "clone");
  must(waitpid(pid, &status, 0), "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
