// peak PROGRAM ARGUMENT…: runs it and prints its peak memory in KB (ru_maxrss, the largest of it and what it reaped). A process takes the peak of the one it
// was forked from with it through exec (getrusage(2)), so who asks must be small.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct rusage used;
  int status, output = dup(1);
  if (argc < 2 || output < 0) return 125;
  dup2(2, 1);
  pid_t child = vfork();
  if (child == 0) {
    close(output);
    execvp(argv[1], argv + 1);
    _exit(127);
  }
  if (child < 0 || wait4(child, &status, 0, &used) < 0) return 125;
  dprintf(output, "%ld\n", used.ru_maxrss);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
