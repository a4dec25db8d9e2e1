"""The messages and calls of proto/lwq/v1 with their comments, as tables for the documentation (docs_pages.py)."""
import dataclasses
import pathlib
import re

PROTO = pathlib.Path(__file__).resolve().parents[1] / "proto/lwq/v1"
FIELD = re.compile(r"(?:(repeated|optional) )?(map<[^>]+>|[\w.]+) (\w+) = \d+;")
RPC = re.compile(r"rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\);")
VALUE = re.compile(r"(\w+) = \d+;")


@dataclasses.dataclass
class Entry:
    """A message, an enum or a service; rows are (name, type, comment)."""
    kind: str
    name: str
    file: str
    comment: str
    rows: list = dataclasses.field(default_factory=list)


class _Reader:
    """Reads one file line by line. Comments stand before what they are about, or behind it."""

    def __init__(self, path):
        self.path, self.entries, self.open, self.before, self.rpc = path, {}, [], [], ""

    def entry(self):
        """The innermost message, enum or service; a oneof's fields are its message's."""
        return next((e for e in reversed(self.open) if e is not None), None)

    def read(self):
        for line in self.path.read_text().splitlines():
            code, _, comment = line.partition("//")
            self.line(code.strip(), comment.strip())
        return self.entries

    def line(self, code, comment):
        if not code:
            if comment:
                self.before.append(comment)
            else:
                self.before = []
            return
        words = " ".join([*self.before, comment]).strip()
        opened = re.match(r"(message|enum|service|oneof) (\w+) \{(\})?", code)
        if opened:
            self.begin(*opened.groups(), words)
        elif code.startswith("}"):
            self.open.pop()
        elif self.entry() is not None:
            self.row(code, words)
        if not (self.rpc and not code.endswith(";")):
            self.before = []

    def begin(self, kind, name, closed, words):
        entry = None
        if kind != "oneof":
            outer = self.entry()
            name = f"{outer.name}.{name}" if outer else name
            entry = self.entries[name] = Entry(kind, name, self.path.name, words)
        if not closed:
            self.open.append(entry)

    def row(self, code, words):
        self.rpc = f"{self.rpc} {code}".strip() if self.rpc or code.startswith("rpc ") else ""
        if self.rpc and not code.endswith(";"):
            return
        if self.rpc:
            name, many, asked, streamed, answer = RPC.fullmatch(self.rpc).groups()
            self.rpc = ""
            self.entry().rows.append((name, f"{'stream of ' if many else ''}{asked} → {'stream of ' if streamed else ''}{answer}", words))
        elif self.entry().kind == "enum" and VALUE.match(code):
            self.entry().rows.append((VALUE.match(code)[1], "", words))
        elif FIELD.match(code):
            label, type_, name = FIELD.match(code).groups()
            self.entry().rows.append((name, f"list of {type_}" if label == "repeated" else type_, words))


def entries():
    """name -> Entry, of all files."""
    found = {}
    for path in sorted(PROTO.glob("*.proto")):
        found.update(_Reader(path).read())
    return found


def types_of(name, known):
    """Names of the messages and enums that the rows of `name` speak of, by proto's rules for nested names."""
    for _, type_, _ in known[name].rows:
        for word in re.findall(r"[A-Za-z]\w*(?:\.\w+)*", type_):
            for candidate in (f"{name}.{word}", f"{name.rsplit('.', 1)[0]}.{word}", word):
                if candidate in known:
                    yield candidate
                    break


def reachable(roots, known):
    """The roots and all that they hold, in the order in which a reader meets them."""
    found, queue = [], list(roots)
    while queue:
        name = queue.pop(0)
        if name not in found:
            found.append(name)
            queue += types_of(name, known)
    return found


def table(entry, known, cell):
    """Markdown: a heading and the rows; types that are documented are links."""
    def linked(type_):
        names = set(types_of(entry.name, known))

        def link(match):
            full = next((n for n in names if n == match[0] or n.endswith("." + match[0])), None)
            return f"[{match[0]}](#{anchor(full)})" if full else match[0]

        return re.sub(r"[A-Za-z]\w*(?:\.\w+)*", link, type_.replace("<", "&lt;"))

    lines = [f"## {entry.name}", ""]
    if entry.comment:
        lines += [cell(entry.comment), ""]
    if entry.kind == "enum":
        return lines + ["| value | |", "| --- | --- |", *(f"| `{n}` | {cell(c)} |" for n, _, c in entry.rows), ""]
    if not entry.rows:
        return lines + ["Nothing.", ""]
    head = "call" if entry.kind == "service" else "field"
    return lines + [f"| {head} | type | |", "| --- | --- | --- |", *(f"| `{n}` | {linked(t)} | {cell(c)} |" for n, t, c in entry.rows), ""]


def anchor(name):
    """As Python-Markdown makes it of a heading."""
    return name.lower().replace(".", "")
