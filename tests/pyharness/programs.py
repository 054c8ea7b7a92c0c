"""Where the built programs are."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
# What `cargo build` makes; `use` changes it.
_build = {"directory": TARGET / "debug"}


def use(directory: Path) -> None:
    """Takes the programs of another build from now on."""
    _build["directory"] = directory


def program(name: str) -> str:
    """The path of a program, which has to be built already."""
    path = _build["directory"] / name
    assert path.exists(), f"{path} is missing; build it with: cargo build --workspace"
    return str(path)
