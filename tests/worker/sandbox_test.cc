#include "worker/sandbox.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <string>
#include <thread>

#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

constexpr int kNoSandbox = 77;

// The exit code of a process of its own in which `body` ran; below 0: the signal that ended it.
int InProcess(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
int InSandbox(const std::function<int()>& body) {
  return InProcess([&] { return EnterSandbox().ok() ? body() : kNoSandbox; });
}

// What a call says that the kernel refuses, and 0 for one that goes through.
int ErrorOf(long result) { return result < 0 ? errno : 0; }

struct Act {
  const char* name;
  std::function<int()> act;  // ErrorOf
};

class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (InSandbox([] { return 0; }) == kNoSandbox) GTEST_SKIP() << "the kernel has no filters";
  }
};

TEST_F(SandboxTest, ProgramsProcessesAndConnectionsAreRefused) {
  const pid_t parent = ::getpid();
  const Act acts[] = {
      {"execve",
       [] {
         char* const argv[] = {nullptr};
         return ErrorOf(::execve("/bin/true", argv, argv));
       }},
      {"execveat",
       [] {
         char* const argv[] = {nullptr};
         return ErrorOf(::syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, argv, 0));
       }},
      {"fork",
       [] {
         const pid_t pid = ::fork();
         if (pid == 0) ::_exit(0);
         return ErrorOf(pid);
       }},
      {"clone", [] { return ErrorOf(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }},
      {"socket of the internet", [] { return ErrorOf(::socket(AF_INET, SOCK_STREAM, 0)); }},
      {"socket of this machine", [] { return ErrorOf(::socket(AF_UNIX, SOCK_STREAM, 0)); }},
      {"io_uring", [] { return ErrorOf(::syscall(SYS_io_uring_setup, 1, nullptr)); }},
      {"ptrace", [parent] { return ErrorOf(::ptrace(PTRACE_ATTACH, parent, 0, 0)); }},
      {"kill", [parent] { return ErrorOf(::kill(parent, 0)); }},
      {"kill all", [] { return ErrorOf(::kill(-1, 0)); }},
      {"pidfd_open", [parent] { return ErrorOf(::syscall(SYS_pidfd_open, parent, 0)); }},
      {"prlimit of another",
       [parent] {
         rlimit limit;
         return ErrorOf(::syscall(SYS_prlimit64, parent, RLIMIT_CPU, nullptr, &limit));
       }},
      {"mount", [] { return ErrorOf(::mount("none", "/", "tmpfs", 0, nullptr)); }},
      {"unshare", [] { return ErrorOf(::unshare(CLONE_NEWUSER)); }},
      {"bpf", [] { return ErrorOf(::syscall(SYS_bpf, 0, nullptr, 0)); }},
      {"keyctl", [] { return ErrorOf(::syscall(SYS_keyctl, 0, 0, 0)); }},
  };
  for (const Act& one : acts) EXPECT_EQ(InSandbox(one.act), EPERM) << one.name;
  // That they are refused is the sandbox's doing, of those that a process may do otherwise.
  for (const Act& one : acts) {
    const std::string name = one.name;
    if (name == "fork" || name == "kill" || name == "prlimit of another" ||
        name.find("socket") == 0) {
      EXPECT_EQ(InProcess(one.act), 0) << name;
    }
  }
}

TEST_F(SandboxTest, NoCallByTheNumbersOfAnotherAbiGoesThrough) {
#if defined(__x86_64__)
  constexpr long kX32 = 0x40000000;
  EXPECT_EQ(InSandbox([] { return ErrorOf(::syscall(kX32 + SYS_getpid)); }), EPERM);
#else
  GTEST_SKIP() << "there is one ABI";
#endif
}

// The worker does so: what takes its task's process over has its user's rights.
TEST(KeepMemoryToItselfTest, AProcessOfTheSameUserCannotOpenIt) {
  const auto opened = [](bool keeps) {
    return InProcess([keeps] {
      if (::geteuid() == 0 && ::setuid(65534) != 0) return -1;  // root may open everything
      ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // which setuid took away
      if (keeps) KeepMemoryToItself();
      const std::string memory = "/proc/" + std::to_string(::getpid()) + "/mem";
      return InProcess([&memory] { return ErrorOf(::open(memory.c_str(), O_RDWR)); });
    });
  };
  EXPECT_EQ(opened(true), EACCES);
  if (opened(false) == EACCES) GTEST_SKIP() << "this kernel refuses it by itself";
  EXPECT_EQ(opened(false), 0);
}

TEST_F(SandboxTest, RightsAndDumpsAreGone) {
  EXPECT_EQ(InSandbox([] {
              rlimit core = {1, 1};
              ::getrlimit(RLIMIT_CORE, &core);
              return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && core.rlim_max == 0 ? 0 : 1;
            }),
            0);
}

TEST_F(SandboxTest, WhatATaskDoesGoesOn) {
  EXPECT_EQ(InSandbox([] {
              std::atomic<int> sum{0};
              std::thread first([&] { sum += 1; }), second([&] { sum += 2; });
              first.join();
              second.join();
              const int file = ::open("/proc/self/exe", O_RDONLY);
              char byte = 0;
              const bool reads = file >= 0 && ::read(file, &byte, 1) == 1;
              return sum == 3 && reads && ::kill(::getpid(), 0) == 0 ? 0 : 1;
            }),
            0);
  // Its own end too: a failed check and a wild pointer say what they are.
  EXPECT_EQ(InSandbox([] { return ::raise(SIGSEGV); }), -SIGSEGV);
  EXPECT_EQ(InSandbox([]() -> int { ::abort(); }), -SIGABRT);
}

// A device's threads are there before.
TEST_F(SandboxTest, ItHoldsForThreadsThatRunAlready) {
  EXPECT_EQ(InProcess([] {
              std::atomic<bool> entered{false};
              std::atomic<int> error{0};
              std::thread other([&] {
                while (!entered) ::sched_yield();
                error = ErrorOf(::socket(AF_INET, SOCK_STREAM, 0));
              });
              if (!EnterSandbox().ok()) ::_exit(kNoSandbox);
              entered = true;
              other.join();
              return error.load();
            }),
            EPERM);
}

TEST_F(SandboxTest, WithoutFiltersTheRightsAreGoneAllTheSame) {
  EXPECT_EQ(InProcess([] {
              if (!EnterSandbox(/*filters=*/false).ok()) return 1;
              if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return 2;
              return ErrorOf(::socket(AF_UNIX, SOCK_STREAM, 0));
            }),
            0);
}

}  // namespace
}  // namespace lwq::testing
