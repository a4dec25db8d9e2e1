"""A PostgreSQL of the test's own, from Debian's packages."""
import os
import pathlib
import signal
import subprocess

from processes import TMP, free_port, run, skip, start, wait_for

NOBODY = 65534
_begin = None  # starts it
_process = None


def start_postgres():
    """The port of a server with the database lwq of the user lwq, who needs no password."""
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not folders:
        skip("postgresql is not installed")
    bin_directory = folders[-1].parent
    data = TMP / "postgres"
    data.mkdir()
    TMP.chmod(0o755)
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        os.chown(data, NOBODY, NOBODY)
    run([bin_directory / "initdb", "-D", data / "db", "-U", "lwq", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        cwd=data, **user)
    global _begin, _process
    port = free_port()
    words = [bin_directory / "postgres", "-D", data / "db", "-p", port, "-k", data, "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"]
    _begin = lambda: start("postgres", words, cwd=data, **user)
    _process = _begin()
    make = [str(bin_directory / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "lwq", "lwq"]
    wait_for("PostgreSQL", lambda: subprocess.run(make, capture_output=True).returncode == 0)
    return port


def stop_postgres():
    """Breaks off what is connected."""
    _process.send_signal(signal.SIGINT)
    _process.wait(60)


def start_postgres_again():
    global _process
    _process = _begin()
