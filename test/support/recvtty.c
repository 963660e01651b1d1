// recvtty for runc's tests: takes the terminals that a runtime sends to a socket and reads them; --mode null throws away what it reads, else the first is copied to stdout.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
  const char *pid = 0, *path = 0;
  int null = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--pid-file")) pid = argv[++i];
    else if (!strcmp(argv[i], "--mode")) null = !strcmp(argv[++i], "null");
    else if (argv[i][0] != '-') path = argv[i];
  }
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (!path || strlen(path) >= sizeof a.sun_path) return 1;
  strcpy(a.sun_path, path);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 16)) return perror("bind"), 1;
  if (pid) {
    FILE *f = fopen(pid, "w");
    if (f) fprintf(f, "%d", getpid()), fclose(f);
  }
  for (;;) {
    int c = accept(s, 0, 0);
    if (c < 0) return 1;
    char name[4096], control[256];
    struct iovec v = {name, sizeof name};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    if (recvmsg(c, &m, 0) < 0 || !CMSG_FIRSTHDR(&m)) return 1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    close(c);
    if (null && fork()) {
      close(fd);
      continue;
    }
    char b[4096];
    for (ssize_t n; (n = read(fd, b, sizeof b)) > 0;)
      if (!null && write(1, b, (size_t)n) < 0) return 1;
    return 0;
  }
}
