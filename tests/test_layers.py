"""The house rules of docs/design.md, held over the syntax trees of the package, lazy imports included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from environment import ROOT

PACKAGE = ROOT / "zmqmr"

# What each part may import besides itself. A part is a folder or a module at the top of the package.
GROUND = {"__init__", "errors", "ids", "messages", "settings", "store_messages", "words"}
DECIDE = GROUND | {"core"}
BYTES = DECIDE | {"net", "data"}
SERVICES = BYTES | {"coordinator", "worker"}
MAY_IMPORT = {
    "__init__": set(),
    **dict.fromkeys(GROUND - {"__init__"}, GROUND),
    "core": GROUND,
    "net": DECIDE,
    "data": DECIDE,
    "coordinator": BYTES,
    "worker": BYTES,
    "status": SERVICES,
    "client": SERVICES | {"status", "hook"},
    "cli": SERVICES | {"status", "client", "hook"},
    "hook": {"client"},  # lazily: what it registers with mrjob, once mrjob has been imported
    "register": {"hook"},
    "__main__": {"cli"},
}

# Imported by every Python process of the environment, so at its top level it may import only this.
HOOK_IMPORTS = {"sys"}

IMPURE = {
    "asyncio", "datetime", "io", "multiprocessing", "mrjob", "os", "pathlib", "psutil", "random", "secrets",
    "select", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "tornado", "uuid",
    "zmq",
}  # fmt: skip

# F39: whoever waits, times out or measures does it by clocks that only go forward.
DECIDES_IN_TIME = {"core", "coordinator", "net", "worker"}
WALL_CLOCK = {f"time.{name}" for name in ("time", "time_ns", "localtime", "gmtime")} | {"datetime.now"}

UNSAFE_MODULES = {"dill", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {
    "eval", "exec", "os.popen", "os.system", "yaml.full_load", "yaml.load", "yaml.unsafe_load",
}  # fmt: skip
UNSAFE_METHODS = {"recv_pyobj", "send_pyobj"}

# (file, call): why it is right there.
ALLOWED = {
    ("data/jobfile.py", "exec"): "a job file is code that the user asked to run",
    ("coordinator/store.py", "time.time"): "the age of files, which bear the time of that clock",
    ("worker/ended_jobs.py", "time.time"): "the age of directories, which bear the time of that clock",
}


def part_of(path: str) -> str:
    return path.partition("/")[0].removesuffix(".py")


def imports(tree: ast.AST, path: str) -> Iterator[str]:
    """The dotted name of every module, or name in a module, that is imported anywhere in the tree."""
    package = ("zmqmr/" + path).split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func) in ("importlib.import_module", "__import__"):
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(path: str, source: str) -> list[str]:
    """What a file does against the rules; `path` is relative to the package."""
    tree = ast.parse(source)
    return [
        *faults_of_imports(path, tree),
        *faults_of_calls(path, tree),
    ]


def faults_of_imports(path: str, tree: ast.Module) -> Iterator[str]:
    part = part_of(path)
    if part not in MAY_IMPORT:
        yield f"{path}: {part} has no layer; give it one in docs/design.md and here"
        return
    for name in imports(tree, path):
        top, _, rest = name.partition(".")
        if top == "zmqmr":
            target = rest.partition(".")[0]
            target = target if (PACKAGE / target).is_dir() or target in MAY_IMPORT else "__init__"
            if target not in MAY_IMPORT[part] | {part, "__init__"}:
                yield f"{path}: imports {name}; {part} stands below {target}"
        elif top in UNSAFE_MODULES:
            yield f"{path}: imports {top}, which executes what it reads"
        elif part == "core" and top in IMPURE:
            yield f"{path}: imports {top}; core is pure"
    if part == "hook":
        outside = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name for node in outside for name in imports(node, path)}
        yield from (f"{path}: imports {name} at every start of Python" for name in names - HOOK_IMPORTS)


def faults_of_calls(path: str, tree: ast.AST) -> Iterator[str]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = dotted(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name in UNSAFE_CALLS or method in UNSAFE_METHODS:
            if (path, name) not in ALLOWED:
                yield f"{path}:{call.lineno}: calls {name or method}"
        elif part_of(path) == "core" and name in ("open", "print", "input"):
            yield f"{path}:{call.lineno}: calls {name}; core is pure"
        elif part_of(path) != "net" and makes_a_zmq_socket(name, method):
            yield f"{path}:{call.lineno}: makes a ZeroMQ socket; only zmqmr.net does"
        if part_of(path) in DECIDES_IN_TIME and name in WALL_CLOCK and (path, name) not in ALLOWED:
            yield f"{path}:{call.lineno}: calls {name}; that clock can be set (F39)"
        if any(k.arg == "shell" and not is_false(k.value) for k in call.keywords):
            yield f"{path}:{call.lineno}: gives a command to a shell"


def makes_a_zmq_socket(name: str, method: str) -> bool:
    return name.endswith("zmq.Context") or (method == "socket" and name != "socket.socket")


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_the_file_keeps_the_rules_of_the_house(path):
    assert faults(path, (PACKAGE / path).read_text()) == []


def test_every_exception_to_the_rules_is_in_use():
    for path, call in ALLOWED:
        tree = ast.parse((PACKAGE / path).read_text())
        assert call in {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_every_folder_of_the_package_is_a_package():
    folders = {Path(path).parent for path in FILES}

    assert [str(folder) for folder in folders if not (PACKAGE / folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/plan.py", "import time"),
        ("core/plan.py", "def f():\n    from random import random"),
        ("core/plan.py", "from zmqmr.net import anything"),
        ("core/plan.py", "from ..data import lines"),
        ("core/plan.py", "open('x')"),
        ("data/inputs.py", "from zmqmr import net"),
        ("net/frames.py", "import zmqmr.data.runs"),
        ("worker/agent.py", "def f():\n    from zmqmr.coordinator import service"),
        ("coordinator/service.py", "import importlib\nimportlib.import_module('zmqmr.worker.agent')"),
        ("client/runner.py", "import zmqmr.cli.run"),
        ("messages.py", "from zmqmr.core import plan"),
        ("elsewhere.py", ""),
        ("hook.py", "import os"),
        ("hook.py", "def f():\n    import zmqmr.worker.agent"),
        ("worker/agent.py", "import pickle"),
        ("worker/agent.py", "from pickle import loads"),
        ("worker/agent.py", "eval('1')"),
        ("worker/agent.py", "exec('1')"),
        ("worker/agent.py", "import yaml\nyaml.load('1')"),
        ("worker/agent.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
        ("worker/agent.py", "import os\nos.system('ls')"),
        ("worker/agent.py", "import zmq\nzmq.Context()"),
        ("worker/agent.py", "import zmq.asyncio\nzmq.asyncio.zmq.Context()"),
        ("worker/agent.py", "context.socket(zmq.PULL)"),
        ("net/frames.py", "socket.recv_pyobj()"),
        ("worker/agent.py", "import time\ntime.time()"),
    ],
)
def test_a_breach_of_the_rules_is_found(path, source):
    assert len(faults(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("net/sockets.py", "import zmq\nzmq.Context().socket(zmq.PULL)"),
        ("status/server.py", "import socket\nsocket.socket()"),
        ("core/plan.py", "from zmqmr.messages import Step\nfrom zmqmr.errors import UsageError"),
        ("core/plan.py", "from .splits import Split"),
        ("worker/agent.py", "from zmqmr.data import runs\nfrom zmqmr.core.splits import Split"),
        ("cli/main.py", "from zmqmr import __version__"),
    ],
)
def test_what_the_rules_allow_is_not_reported(path, source):
    assert faults(path, source) == []
