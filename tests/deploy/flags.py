"""The flags that a binary says it knows, and what is wrong with a command line."""
import functools
import re
import subprocess

from processes import lwq

# Set by whoever starts the process; read by the program or by a library of it.
VARIABLES = {
    "lwq-server": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD"},
    "lwq-worker": {"POD"},  # used in the manifest's own command line
    "lwqctl": {"LWQ_SERVER", "LWQ_TLS_CA", "LWQ_TLS_CERT", "LWQ_TLS_KEY", "LWQ_TOKEN_FILE"},
}


@functools.lru_cache
def known_flags(program):
    text = subprocess.run([lwq(program), "--help"], capture_output=True, text=True).stdout
    return frozenset(re.findall(r"--[a-z][a-z-]+", text))


def wrong(program, words, variables=()):
    """What a command line of --flag=value words and its environment have that the program does not know."""
    flags = [word.split("=", 1)[0] for word in words]
    bad = [word for word, flag in zip(words, flags) if flag not in known_flags(program) or "=" not in word]
    bad += [flag for flag in set(flags) if flags.count(flag) > 1 and flag != "--model-root"]
    return bad + [name for name in variables if name not in VARIABLES[program]]
