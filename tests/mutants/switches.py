"""Puts many changes into one program: each is behind a switch, the number in $MUTANT. So
the sources are compiled once and not once for each change.

The changes are those that cargo-mutants lists. What cannot be behind a switch, such as
what stands in a constant, is left out."""

import json
import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import tree_sitter_rust
from tree_sitter import Language, Node, Parser

PARSER = Parser(Language(tree_sitter_rust.language()))
SWITCH = """\
/// Whether this is the change that is tried.
pub fn is(number: u32) -> bool {
    static NUMBER: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| std::env::var("MUTANT").ok().or_else(of_parent)?.parse().ok()) == Some(number)
}

/// The same of the program that has started this one, perhaps with an empty environment.
fn of_parent() -> Option<String> {
    let environment = std::fs::read(format!("/proc/{}/environ", std::os::unix::process::parent_id())).ok()?;
    let value = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"MUTANT="))?;
    String::from_utf8(value.to_vec()).ok()
}
"""
# What has no place for a switch.
CONSTANT = {"attribute_item", "const_item", "macro_definition", "static_item"}
LET = {"let_chain", "let_condition"}


class Unbuildable(Exception):
    """The sources do not compile, whatever is left out."""


def build(tree: Path, package: str, folder: str, changes: list[dict], other_tests: list[str],
          env: dict[str, str]) -> tuple[list[str], set[int], set[int]]:
    """Plants the changes, by their numbers, in the copied sources in `tree`, and builds the
    unit tests and the other ones. Returns their programs, the numbers of the changes in
    them, and the numbers of those that do not compile."""
    whole = {name: (tree / name).read_bytes() for name in {change["file"] for change in changes}}
    root = tree / folder / "src/lib.rs"
    (root.parent / "mutant.rs").write_text("//! Switches.\n" + SWITCH)
    root.write_text(root.read_text() + "\n#[doc(hidden)]\npub mod mutant;\n")
    broken: set[int] = set()
    while True:
        planted: set[int] = set()
        for name, source in whole.items():
            here = {number: change for number, change in enumerate(changes)
                    if change["file"] == name and number not in broken}
            text, numbers = Plant(source, here).planted()
            (tree / name).write_text(text)
            planted |= numbers
        command = ["cargo", "test", "--locked", f"--package={package}", "--lib", *other_tests, "--no-run", "--message-format=json",
                   # What is built once and run many times.
                   f"--config=profile.dev.package.{package}.opt-level=1"]
        said = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
        messages = [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
        programs = {message["target"]["kind"][0]: message["executable"] for message in messages
                    if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]}
        if said.returncode == 0 and len(programs) == 1 + len(other_tests):
            return [programs["lib"], *(program for kind, program in programs.items() if kind != "lib")], planted, broken
        errors = [message["message"] for message in messages if message["reason"] == "compiler-message"]
        found = {number for error in errors if error["level"] == "error" for number in blamed(tree, error)} - broken
        if not found:
            raise Unbuildable("\n".join(error["rendered"] for error in errors) or said.stderr)
        broken |= found


def blamed(tree: Path, error: dict) -> set[int]:
    """The changes that an error of the compiler is about."""
    for span in error["spans"]:
        if not span["is_primary"] or not (tree / span["file_name"]).is_file():
            continue
        lines = (tree / span["file_name"]).read_text().splitlines()
        if "non-exhaustive patterns" in error["message"]:
            # An arm that has to be there: in the match that begins in this line.
            arms = "\n".join(lines[span["line_start"] - 1 : span["line_start"] + 60])
            return {int(number) for number in re.findall(r"if \(!crate::mutant::is\((\d+)\)\)", arms)}
        text = "\n".join(lines[span["line_start"] - 1 : span["line_end"]])
        switches = [(match.start(), int(match[1])) for match in re.finditer(r"mutant::is\((\d+)\)", text)]
        before = [number for at, number in switches if at < span["column_start"]]
        if switches:
            return {before[-1] if before else switches[0][1]}
    return set()


class Plant:
    """One file, and the changes of it that are to be behind switches."""

    def __init__(self, source: bytes, changes: dict[int, dict]) -> None:
        self.source = source
        self.root = PARSER.parse(source).root_node
        self.starts = [0]
        for line in source.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.done: set[int] = set()
        # By where they are: what cargo-mutants calls the change's kind, its number, and what comes in its place.
        self.at: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
        self.bodies: dict[int, list[tuple[int, str]]] = defaultdict(list)
        functions = [node for node in self.nodes(self.root) if node.type == "function_item" and self.body(node)]
        for number, change in changes.items():
            start = self.offset(change["span"]["start"])
            if change["genre"] != "FnValue":
                self.at[start].append((change["genre"], number, change["replacement"]))
                continue
            around = [node for node in functions if self.body(node).start_byte <= start < self.body(node).end_byte]
            if around:
                inner = min(around, key=lambda node: node.end_byte - node.start_byte)
                self.bodies[inner.id].append((number, change["replacement"]))

    def planted(self) -> tuple[str, set[int]]:
        text = self.source[: self.root.start_byte].decode() + self.text(self.root)
        return text, self.done

    def nodes(self, node: Node):
        yield node
        for child in node.children:
            yield from self.nodes(child)

    def offset(self, place: dict[str, int]) -> int:
        """Of a line and a column in characters, both from 1 on."""
        start, end = self.starts[place["line"] - 1], self.starts[place["line"]]
        return start + len(self.source[start:end].decode()[: place["column"] - 1].encode())

    def raw(self, start: int, end: int) -> str:
        return self.source[start:end].decode()

    @staticmethod
    def body(function: Node) -> Node | None:
        return function.child_by_field_name("body")

    def switches(self, start: int, kind: str) -> list[tuple[str, str]]:
        """The conditions of the changes of this kind there, and what comes in the place."""
        found = [(number, text) for genre, number, text in self.at.get(start, []) if genre == kind]
        self.done |= {number for number, _ in found}
        return [(f"crate::mutant::is({number})", text) for number, text in found]

    def text(self, node: Node) -> str:
        """A node's text with its switches."""
        form = getattr(self, f"of_{node.type}", None)
        if node.child_count == 0 or node.type in CONSTANT or self.is_test(node):
            return self.raw(node.start_byte, node.end_byte)
        return (form(node) if form else None) or self.parts(node)

    def is_test(self, node: Node) -> bool:
        before = node.prev_sibling
        return before is not None and before.type == "attribute_item" and before.text == b"#[cfg(test)]"

    def parts(self, node: Node) -> str:
        text, at = "", node.start_byte
        for child in node.children:
            text += self.raw(at, child.start_byte) + self.text(child)
            at = child.end_byte
        return text + self.raw(at, node.end_byte)

    def of_binary_expression(self, node: Node) -> str | None:
        operator = node.child_by_field_name("operator")
        others = self.switches(operator.start_byte, "BinaryOperator")
        if not others:
            return None
        left, right = (self.text(node.child_by_field_name(side)) for side in ("left", "right"))
        sign = self.raw(operator.start_byte, operator.end_byte)
        if sign in ("&&", "||"):
            # The left side may be long, and have such signs itself: it stands here once.
            ways = "".join(f"if {switch} {{ mutant_left {other} {right} }} else " for switch, other in others)
            return f"({{ let mutant_left: bool = {left}; {ways}{{ mutant_left {sign} {right} }} }})"
        ways = "".join(f"if {switch} {{ ({left}) {other} {right} }} else " for switch, other in others)
        return f"({ways}{{ ({left}) {sign} {right} }})"

    def of_compound_assignment_expr(self, node: Node) -> str | None:
        operator = node.child_by_field_name("operator")
        others = self.switches(operator.start_byte, "BinaryOperator")
        if not others:
            return None
        left, right = (self.text(node.child_by_field_name(side)) for side in ("left", "right"))
        ways = "".join(f"if {switch} {{ {left} {other} {right} }} else " for switch, other in others)
        return f"{{ {ways}{{ {left} {self.raw(operator.start_byte, operator.end_byte)} {right} }} }}"

    def of_unary_expression(self, node: Node) -> str | None:
        others = self.switches(node.start_byte, "UnaryOperator")
        operand = self.text(node.children[-1]) if others else ""
        sign = self.raw(node.children[0].start_byte, node.children[0].end_byte)
        return f"(if {others[0][0]} {{ {operand} }} else {{ {sign}{operand} }})" if others else None

    def of_match_arm(self, node: Node) -> str | None:
        pattern = node.child_by_field_name("pattern")
        guard = pattern.child_by_field_name("condition")
        if guard is not None and guard.type in LET:
            return None
        condition = None
        if guard is not None:
            condition = self.text(guard)
            for switch, other in self.switches(guard.start_byte, "MatchArmGuard"):
                condition = f"({switch} || {condition})" if other == "true" else f"(!{switch} && {condition})"
        for switch, _ in self.switches(node.start_byte, "MatchArm"):
            condition = f"(!{switch})" + (f" && ({condition})" if condition else "")
        if condition is None:
            return None
        ends = guard.prev_sibling.start_byte if guard is not None else pattern.end_byte
        head = self.raw(node.start_byte, ends).rstrip()
        rest = "".join(self.text(child) + " " for child in node.children if child.start_byte >= pattern.end_byte)
        return f"{head} if {condition} {rest}\n"

    def of_struct_expression(self, node: Node) -> str | None:
        fields = [field for field in node.child_by_field_name("body").named_children if "comment" not in field.type]
        without = [(field, switch) for field in fields for switch, _ in self.switches(field.start_byte, "StructField")]
        if not without:
            return None
        name = self.raw(node.start_byte, node.child_by_field_name("body").start_byte)

        def made(left_out: Node | None) -> str:
            kept = [self.text(field) for field in fields if left_out is None or field.id != left_out.id]
            return f"{name}{{ {', '.join(kept)} }}"

        return "(" + "".join(f"if {switch} {{ {made(field)} }} else " for field, switch in without) + f"{{ {made(None)} }})"

    def of_function_item(self, node: Node) -> str | None:
        body = self.body(node)
        head = self.raw(node.start_byte, body.start_byte) if body else ""
        # Each way of returning has to be of one type there; and a constant function asks for no environment.
        if not body or node.id not in self.bodies or re.search(r"->[^{]*\bimpl\b|\bconst\s+fn\b", head):
            return None
        self.done |= {number for number, _ in self.bodies[node.id]}
        ways = "".join(f"if crate::mutant::is({number}) {{ return {value}; }}\n" for number, value in self.bodies[node.id])
        return f"{head}{{ {ways}{self.text(body)[1:]}"


def changed(source: str, change: dict) -> str:
    """The source with one change made in it."""
    lines = source.split("\n")
    start, end = change["span"]["start"], change["span"]["end"]
    before = [*lines[: start["line"] - 1], lines[start["line"] - 1][: start["column"] - 1]]
    after = [lines[end["line"] - 1][end["column"] - 1 :], *lines[end["line"] :]]
    return "\n".join(before) + change["replacement"] + "\n".join(after)


def environment(target: Path) -> dict[str, str]:
    """How everything is built: once for all copies, and without what only debuggers use."""
    own = {"CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_DEBUG": "none", "CARGO_INCREMENTAL": "1"}
    return os.environ | own
