#include "worker/sandbox.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lwq {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
constexpr uint32_t kOtherAbi = 0x40000000;  // x32: the same calls by other numbers
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
constexpr uint32_t kOtherAbi = 0;
#else
constexpr uint32_t kArchitecture = 0;
constexpr uint32_t kOtherAbi = 0;
#endif

// A list of what is refused and not of what is allowed: what the libraries for matrices and GPUs
// call is theirs to choose, and changes with their versions.
constexpr long kRefused[] = {
    // Programs and processes. clone is looked at below, clone3 cannot be.
    SYS_execve,
    SYS_execveat,
    SYS_setns,
    SYS_unshare,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_kcmp,
    SYS_personality,
#ifdef SYS_fork
    SYS_fork,
    SYS_vfork,
#endif
    // Connections, those that io_uring makes too. What is open stays open.
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    // File systems.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_quotactl,
    SYS_swapon,
    SYS_swapoff,
    SYS_mknodat,
#ifdef SYS_mknod
    SYS_mknod,
#endif
    // The kernel and the machine.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_reboot,
    SYS_acct,
    SYS_syslog,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_vhangup,
#if defined(__x86_64__)
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
#endif
};

constexpr uint32_t kNumber = offsetof(seccomp_data, nr);
constexpr uint32_t kArch = offsetof(seccomp_data, arch);
// The lower half of the first argument, on machines that store it first.
constexpr uint32_t kFirst = offsetof(seccomp_data, args);

sock_filter Load(uint32_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); }
sock_filter Return(uint32_t what) { return BPF_STMT(BPF_RET | BPF_K, what); }
// Skips so many instructions when the value is, or is not, `value`.
sock_filter IfEqual(uint32_t value, uint8_t yes, uint8_t no) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no);
}
sock_filter IfAnyBit(uint32_t bits, uint8_t yes, uint8_t no) {
  return BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, yes, no);
}

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM;

std::vector<sock_filter> MakeFilter() {
  std::vector<sock_filter> filter = {Load(kArch), IfEqual(kArchitecture, 1, 0),
                                     Return(SECCOMP_RET_KILL_PROCESS), Load(kNumber)};
  if (kOtherAbi != 0) {
    filter.push_back(IfAnyBit(kOtherAbi, 0, 1));
    filter.push_back(Return(kRefuse));
  }
  for (const long call : kRefused) {
    filter.push_back(IfEqual(static_cast<uint32_t>(call), 0, 1));
    filter.push_back(Return(kRefuse));
  }
  // Its flags are in memory, where no filter reads: libraries then use clone.
  filter.push_back(IfEqual(SYS_clone3, 0, 1));
  filter.push_back(Return(SECCOMP_RET_ERRNO | ENOSYS));
  // A thread, and no process.
  filter.push_back(IfEqual(SYS_clone, 0, 4));
  filter.push_back(Load(kFirst));
  filter.push_back(IfAnyBit(CLONE_THREAD, 0, 1));
  filter.push_back(Return(kAllow));
  filter.push_back(Return(kRefuse));
  // Signals to itself alone: abort() and raise() need them.
  const uint32_t self = static_cast<uint32_t>(::getpid());
  for (const long call : {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo}) {
    filter.push_back(IfEqual(static_cast<uint32_t>(call), 0, 4));
    filter.push_back(Load(kFirst));
    filter.push_back(IfEqual(self, 0, 1));
    filter.push_back(Return(kAllow));
    filter.push_back(Return(kRefuse));
  }
  // Limits of its own alone: glibc reads and sets them by this call too.
  filter.push_back(IfEqual(SYS_prlimit64, 0, 5));
  filter.push_back(Load(kFirst));
  filter.push_back(IfEqual(0, 1, 0));
  filter.push_back(IfEqual(self, 0, 1));
  filter.push_back(Return(kAllow));
  filter.push_back(Return(kRefuse));
  // By a thread's number alone: it may be another process's.
  filter.push_back(IfEqual(SYS_tkill, 0, 1));
  filter.push_back(Return(kRefuse));
  filter.push_back(Return(kAllow));
  return filter;
}

absl::Status Unable(const char* what) {
  return absl::UnimplementedError(
      absl::StrCat(what, ": ", absl::ErrnoToStatus(errno, "").message()));
}

}  // namespace

absl::Status EnterSandbox(bool filters) {
  const rlimit none = {0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Unable("no-new-privileges");
  if (!filters) return absl::OkStatus();
  if (kArchitecture == 0) return absl::UnimplementedError("no filter for this architecture");
  std::vector<sock_filter> filter = MakeFilter();
  sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
    return Unable("a filter of system calls");
  }
  return absl::OkStatus();
}

void KeepMemoryToItself() { ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

void PreferAsOomVictim() {
  const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  // The more of the two where both have much: 1000 is the most there is.
  if (::write(file, "900", 3) < 0) errno = 0;
  ::close(file);
}

}  // namespace lwq
