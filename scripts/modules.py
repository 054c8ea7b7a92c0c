"""Reads the modules of Rust crates, and follows the names that they use to the
files that define them. Understands as much of the language as that takes: no
types, no macros, no name that is not part of a path.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = re.compile(
    r"""
    (?P<skip>\s+|//[^\n]*)
  | (?P<comment>/\*)
  | (?P<string>b?c?"(?:[^"\\]|\\.)*")
  | (?P<raw>b?c?r(?P<hashes>\#*)".*?"(?P=hashes))
  | (?P<char>b?'(?:[^'\\\n]|\\(?:u\{[^}]*\}|x..|.))')
  | (?P<lifetime>'\w+)
  | (?P<word>(?:r\#)?[A-Za-z_]\w*)
  | (?P<number>\d\w*)
  | (?P<sign>::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
OPENS = {"{": "}", "(": ")", "[": "]"}
DEFINES = {"struct", "enum", "union", "fn", "const", "static", "type", "trait", "macro_rules"}


@dataclass
class Token:
    kind: str
    text: str
    line: int


def tokens_of(text):
    """The tokens of a file, without comments."""
    found, at, line = [], 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        kind, end = match.lastgroup, match.end()
        if kind == "comment":  # They nest, which no regular expression follows.
            depth, end = 1, at + 2
            while depth and end < len(text):
                if text.startswith("/*", end):
                    depth, end = depth + 1, end + 2
                elif text.startswith("*/", end):
                    depth, end = depth - 1, end + 2
                else:
                    end += 1
        elif match["raw"] is not None:
            found.append(Token("string", match["raw"].split('"', 1)[1].rstrip('"#'), line))
        elif kind == "string":
            found.append(Token("string", match[0].split('"', 1)[1][:-1], line))
        elif kind != "skip":
            found.append(Token(kind, match[0].removeprefix("r#"), line))
        line += text.count("\n", at, end)
        at = end
    return found


def past(tokens, at):
    """The index behind the bracket that is opened at `at`."""
    depth = 0
    while at < len(tokens):
        if tokens[at].kind == "sign":
            depth += tokens[at].text in OPENS
            depth -= tokens[at].text in OPENS.values()
        at += 1
        if depth == 0:
            break
    return at


def past_item(tokens, at):
    """The index behind the item, statement, field or match arm that starts at `at`."""
    while at < len(tokens) and tokens[at].text == "#":
        at = past(tokens, at + 1)
    to_semicolon = ends_at_comma = None
    while at < len(tokens):
        text = tokens[at].text
        if to_semicolon is None and text not in ("pub", "("):
            to_semicolon = text in ("use", "const", "static", "type", "let")
            ends_at_comma = text not in DEFINES | {"impl", "mod", "async", "unsafe", "extern", "use", "let"}
        if tokens[at].kind == "sign":
            if text in OPENS:
                at = past(tokens, at)
                if text == "{" and not to_semicolon:
                    return at
                continue
            if text == ";" or (text == "," and ends_at_comma):
                return at + 1
            if text in OPENS.values():
                return at
        at += 1
    return at


def only_in_tests(attribute):
    """Whether an attribute's tokens keep its item out of what is built for users."""
    texts = [token.text for token in attribute]
    return texts[:1] == ["test"] or (texts[:1] == ["cfg"] and "test" in texts and "not" not in texts)


@dataclass
class Module:
    """A module of a crate; an inline one shares its parent's file."""

    crate: "Module | None"
    parent: "Module | None"
    file: Path
    folder: Path
    children: dict[str, "Module"] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)
    # What `use` calls NAME, and the line of each `use`; `pub use` only hands on.
    imported: dict[str, list[str]] = field(default_factory=dict)
    globs: list[list[str]] = field(default_factory=list)
    # Each path named outside of `pub use`, with its line.
    named: list[tuple[list[str], int]] = field(default_factory=list)

    @property
    def root(self):
        return self.crate or self


def crate_of(file):
    module = Module(None, None, file, file.parent)
    read_file(module)
    return module


def read_file(module):
    read_items(module, tokens_of(module.file.read_text()))


def read_items(module, tokens):
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.text == "#" and at + 1 < len(tokens) and tokens[at + 1].text in ("[", "!"):
            start = at + 1 + (tokens[at + 1].text == "!")
            end = past(tokens, start)
            attribute = tokens[start + 1 : end - 1]
            if only_in_tests(attribute):
                if tokens[at + 1].text == "!":
                    return
                end = past_item(tokens, end)
            else:
                read_attribute(module, attribute)
            at = end
        elif token.text == "mod" and at + 2 < len(tokens) and tokens[at + 1].kind == "word":
            name = tokens[at + 1].text
            if tokens[at + 2].text == ";":
                child = Module(module.root, module, *place(module, name))
                module.children[name] = child
                read_file(child)
                at += 3
            else:
                end = past(tokens, at + 2)
                child = Module(module.root, module, module.file, module.folder / name)
                module.children[name] = child
                read_items(child, tokens[at + 3 : end - 1])
                at = end
        elif token.text == "use" and token.kind == "word" and tokens[at + 1].text not in ("<",):
            end = next(i for i in range(at, len(tokens)) if tokens[i].text == ";")
            handed_on = at > 0 and tokens[at - 1].text in ("pub", ")")
            read_use(module, tokens[at + 1 : end], handed_on)
            at = end + 1
        elif token.kind == "word":
            if token.text in DEFINES and at + 1 < len(tokens):
                name = at + 1 + (tokens[at + 1].text in ("!", "mut", "fn"))
                if tokens[name].kind == "word":
                    module.defined.add(tokens[name].text)
            at = read_path(module, tokens, at)
        else:
            at += 1


def read_path(module, tokens, at):
    """Notes the path that starts at `at`, unless it is a single word; the index behind it."""
    path, line = [tokens[at].text], tokens[at].line
    while at + 2 < len(tokens) and tokens[at + 1].text == "::" and tokens[at + 2].kind == "word":
        path.append(tokens[at + 2].text)
        at += 2
    if len(path) > 1:
        module.named.append((path, line))
    return at + 1


def read_attribute(module, tokens):
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "word":
            at = read_path(module, tokens, at)
            continue
        if token.kind == "string" and re.fullmatch(r"\w+(::\w+)+", token.text):
            module.named.append((token.text.split("::"), token.line))
        at += 1


def place(module, name):
    """The file of `mod NAME;`, and the folder in which its own children stand."""
    for file in (module.folder / f"{name}.rs", module.folder / name / "mod.rs"):
        if file.is_file():
            return file, module.folder / name
    sys.exit(f"{module.file}: no file for `mod {name};`")


def read_use(module, tokens, handed_on):
    def tree(at, prefix):
        path = list(prefix)
        while at < len(tokens):
            token = tokens[at]
            if token.text == "{":
                at += 1
                while tokens[at].text != "}":
                    at = tree(at, path)
                    at += tokens[at].text == ","
                return at + 1
            if token.text == "*":
                module.globs.append(path)
                note(path, token)
                return at + 1
            if token.kind == "word":
                if not (token.text == "self" and path):
                    path.append(token.text)
                at += 1
                if at < len(tokens) and tokens[at].text == "as":
                    module.imported[tokens[at + 1].text] = path
                    note(path, token)
                    return at + 2
                if at >= len(tokens) or tokens[at].text != "::":
                    module.imported[path[-1]] = path
                    note(path, token)
                    return at
            else:
                at += 1
        return at

    def note(path, token):
        if not handed_on:
            module.named.append((path, token.line))

    tree(0, [])


# --- following names


def resolve(module, path, crates, seen=frozenset()):
    """(module, name) that a path leads to, or None where it leaves the workspace.

    The name is None where the path ends at a module. `seen` are the imports that
    were followed already, for names of other crates that look like our own.
    """
    first, rest = path[0], path[1:]
    if first == "crate":
        return descend(module.root, rest, crates, seen)
    if first == "self":
        return descend(module, rest, crates, seen)
    if first == "super" and module.parent:
        return descend(module.parent, rest, crates, seen)
    if first in module.children:
        return descend(module.children[first], rest, crates, seen)
    if first in module.imported and (id(module), first) not in seen:
        return resolve(module, module.imported[first] + rest, crates, seen | {(id(module), first)})
    if first in crates:
        return descend(crates[first], rest, crates, seen)
    return None


def descend(module, path, crates, seen):
    if not path:
        return module, None
    first = path[0]
    if first in module.defined and first not in module.children:
        return module, first
    if first == "super" or first in module.children or first in module.imported:
        return resolve(module, path, crates, seen)
    for glob in module.globs:
        if (id(module), *glob) not in seen:
            found = resolve(module, glob + path, crates, seen | {(id(module), *glob)})
            if found and (found[1] is None or found[1] in found[0].defined):
                return found
    return module, first


def modules_of(module):
    yield module
    for child in module.children.values():
        yield from modules_of(child)


def enclosing_of(module):
    while module.parent:
        module = module.parent
        yield module
