"""deploy/systemd: systemd itself takes the units, and their command lines are started as they stand there, from settings files."""
import configparser
import os
import re
import shlex
import subprocess

import flags
from processes import ROOT, TMP, check, finish, lwq, lwqctl, need, start, wait_for

UNITS = {"lwq-server": "server", "lwq-worker": "worker"}


def unit_of(program):
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str
    parser.read(ROOT / f"deploy/systemd/{program}.service")
    return parser


def verified(text, program):
    """What systemd-analyze says of a unit whose program is where it is built."""
    path = TMP / f"{program}.service"
    path.write_text(text.replace(f"/usr/local/bin/{program}", lwq(program)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
    said = done.stdout + done.stderr
    return [line for line in said.splitlines() if f"{program}.service" in line]


def command_of(program):
    """As systemd would start it, with folders of this test."""
    line = unit_of(program)["Service"]["ExecStart"]
    return [lwq(program) if word.endswith(f"/bin/{program}") else re.sub(r"%[SC]|/etc/lwq", str(TMP), word) for word in shlex.split(line)]


def main():
    need("systemd-analyze")
    for program in UNITS:
        text = (ROOT / f"deploy/systemd/{program}.service").read_text()
        said = verified(text, program)
        check(not said, f"systemd takes {program}.service {said or ''}")
        check(verified(text.replace("Restart=always", "Restart=ever"), program), "and would not take a wrong word")
        service = unit_of(program)["Service"]
        words = shlex.split(service["ExecStart"])[1:]
        bad = flags.wrong(program, [f"{a}={b}" for a, b in zip(words[::2], words[1::2])])
        check(not bad, f"{program} knows its flags {bad or ''}")
        code = subprocess.run([lwq(program), "--no-such-flag"], capture_output=True).returncode
        check(str(code) == service["RestartPreventExitStatus"], f"{program} is not started again after a wrong setting, {code}")
    server, worker = (unit_of(program)["Service"] for program in UNITS)
    check(server["Group"] == worker["Group"] and server["RuntimeDirectory"] == "lwq", "both are of the group that may enter /run/lwq")
    os.umask(int(server["UMask"], 8))
    socket = f"unix:{TMP}/s"
    (TMP / "server.toml").write_text(f'listen = "{socket}"\n')
    (TMP / "worker.toml").write_text(f'server = "{socket}"\nworker-id = "w"\nthreads = 1\n')
    for program in UNITS:
        start(program, command_of(program))
    wait_for("the worker to be there", lambda: (TMP / "s").exists() and "w" in lwqctl(socket, "workers", "-o", "name").split())
    check(True, "a server and a worker start as the units say")
    mode = (TMP / "s").stat().st_mode & 0o777
    check(mode & 0o020 and not mode & 0o007, f"the group may use the socket, and nobody else: {mode:o}")


main()
finish()
