"""Runs one program and ends it, and everything it started, when its owner dies.

This file is a program of its own (`python -I -S process_supervisor.py OWNER_PID CONTROL_FD STATUS_FD [TTY_FD BEFORE
RAW] -- ARGV...`) and
imports only modules that load quickly. It is the parent of the program and a child subreaper, so daemonised
descendants are reparented to it. It notices the owner's death (by SIGKILL too) through a pidfd, which unlike a pipe
cannot be kept open by another process; if the supervisor itself is killed, PR_SET_PDEATHSIG ends the program.

A terminal that the owner has put into raw mode is restored when the owner dies, unless its mode is another one by then:
BEFORE and RAW are its attributes as JSON.

Control: one byte, `T` (SIGTERM) or `K` (SIGKILL); end of file means `T`, then `K` after two seconds.
Status: the line `pid N`, then `exit N`, `signal N` or `error ERRNO`.
Sources: prctl(2) PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG, pidfd_open(2).
"""

import _signal as signal  # type: ignore[import-not-found] # signal.py's enums take a third of the start-up time
import ctypes
import errno
import os
import select
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0
DYING_MS = 200


def start(argv: list[str], prctl: "ctypes._NamedFuncPointer", keep: set[int]) -> int:
    """Fork and exec `argv` in a process group of its own; return its pid. Errors: `OSError` if exec fails."""
    failed_r, failed_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            for fd in keep:
                os.close(fd)
            os.execvp(argv[0], argv)
        except OSError as error:
            os.write(failed_w, str(error.errno or errno.EIO).encode())
        os._exit(127)
    os.close(failed_w)
    text = os.read(failed_r, 16)
    os.close(failed_r)
    if text:
        os.waitpid(pid, 0)
        raise OSError(int(text), "exec")
    return pid


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the program's group, if it still exists."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def reap_descendants() -> None:
    """Kill and reap every child of this process, including those reparented to it in the meantime."""
    me = os.getpid()
    for _ in range(1000):
        try:
            with open(f"/proc/{me}/task/{me}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            return
        if not children:
            return
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for child in children:
            try:
                os.waitpid(child, 0)
            except ChildProcessError:
                pass


def child_events() -> int:
    """Return a descriptor that can be read when a child has ended."""
    readable, writable = os.pipe()
    for fd in (readable, writable):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writable)
    return readable


def reap_orphans(pid: int, events_fd: int) -> None:
    """Reap the children that have ended, except the program: who waits for a daemon to be gone would wait forever."""
    try:
        os.read(events_fd, 4096)
    except BlockingIOError:
        pass
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == pid:
            return
        os.waitpid(ended.si_pid, 0)


def attributes(fd: int) -> "list[object]":
    """A terminal's attributes, its special characters as numbers."""
    import termios

    *numbers, characters = termios.tcgetattr(fd)
    return [*numbers, [char if isinstance(char, int) else char[0] for char in characters]]


def restore(terminal: list[str]) -> None:
    """Restore the terminal of an owner that died, if it is still as the owner left it."""
    if not terminal:
        return
    import json
    import termios

    fd = int(terminal[0])
    try:
        if attributes(fd) == json.loads(terminal[2]):
            termios.tcsetattr(fd, termios.TCSANOW, json.loads(terminal[1]))
    except (OSError, termios.error):
        pass


def watch(pid: int, owner_fd: int, control_fd: int, child_fd: int) -> "tuple[int, bool]":
    """Wait for the program to end, acting on control bytes meanwhile.

    Returns its raw wait status, and whether the owner let it go before its end, by closing or by dying.
    """
    poll = select.poll()
    events_fd = child_events()
    reap_orphans(pid, events_fd)
    for fd in (owner_fd, control_fd, child_fd, events_fd):
        poll.register(fd, select.POLLIN)
    deadline = None
    let_go = False
    while True:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(timeout)}
        if child_fd in ready:
            return os.waitpid(pid, 0)[1], let_go
        if events_fd in ready:
            reap_orphans(pid, events_fd)
        if deadline is not None and time.monotonic() >= deadline:
            signal_group(pid, signal.SIGKILL)
            deadline = time.monotonic() + GRACE_S
        gone = owner_fd in ready
        if control_fd in ready:
            word = os.read(control_fd, 1)
            if word == b"K":
                signal_group(pid, signal.SIGKILL)
            elif word == b"T":
                signal_group(pid, signal.SIGTERM)
            gone = gone or not word
        if gone:
            let_go = True
            for fd in (owner_fd, control_fd):
                try:
                    poll.unregister(fd)
                except KeyError:
                    pass
            signal_group(pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_S


def main() -> int:
    owner, control_fd, status_fd = (int(word) for word in sys.argv[1:4])
    dashes = sys.argv.index("--")
    terminal, argv = sys.argv[4:dashes], sys.argv[dashes + 1 :]
    terminal_fds = {int(word) for word in terminal[:1]}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the owner decides, through the control pipe
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    owner_fd = os.pidfd_open(owner)
    if os.getppid() != owner:
        return 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        pid = start(argv, prctl, {owner_fd, control_fd, status_fd, *terminal_fds})
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    except OSError as error:
        os.write(status_fd, f"error {error.errno}\n".encode())
        return 127
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    keep = {control_fd, status_fd, owner_fd, *terminal_fds}
    for name in os.listdir("/proc/self/fd"):  # descriptors passed to the program must not stay open here
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass
    try:
        os.write(status_fd, f"pid {pid}\n".encode())
    except BrokenPipeError:
        pass
    raw, let_go = watch(pid, owner_fd, control_fd, os.pidfd_open(pid))
    signal_group(pid, signal.SIGKILL)
    reap_descendants()
    code = os.waitstatus_to_exitcode(raw)
    try:
        os.write(status_fd, (f"exit {code}\n" if code >= 0 else f"signal {-code}\n").encode())
    except BrokenPipeError:
        pass
    if terminal and let_go:
        poll = select.poll()
        poll.register(owner_fd, select.POLLIN)
        if poll.poll(DYING_MS):  # its descriptors are closed a little before it is dead
            restore(terminal)
    return 0


if __name__ == "__main__":
    os._exit(main())  # skip the interpreter's clean-up: the owner is waiting
