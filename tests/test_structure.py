"""The house rules of DESIGN.md and STYLE.md, read from the source; each is shown to catch a violation."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dtrain"

# A part may import what stands in an earlier row, never what stands in its own row or a later one.
FLOORS = (
    ("errors",),
    ("proto", "kernels", "comm", "data", "metrics"),
    ("blob",),
    ("fillers",),
    ("layers",),
    ("graph", "loss_weights", "params"),  # what net.py is made of
    ("net",),
    ("fusion", "sharing"),  # what plan.py is made of
    ("plan",),
    ("solvers",),
    ("pycaffe",),
    ("cli",),
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
ALSO = {("data", "proto")}  # a Datum is what a data reader reads

DRAWERS = ("utils", "util", "helpers", "helper", "common", "manager", "misc")
ENVIRONMENT_READERS = ("cli", "comm")
ABSTRACT_BASES = {"ABC", "Protocol", "Exception", "BaseException", "Enum", "IntEnum", "StrEnum", "IntFlag"}
VALUE_BASES = {"NamedTuple", "TypedDict"}

Rule = Callable[[str, ast.Module], Iterator[str]]


def part_of(file: str) -> str:
    """ "dtrain/layers/pooling.py" -> "layers"; "dtrain/net.py" -> "net"; the package itself -> ""."""
    parts = Path(file).with_suffix("").parts[1:]
    return "" if parts[0] in ("__init__", "__main__") else parts[0]


def dotted(node: ast.expr) -> str:
    """ "a.b.c" of a name or of attributes of a name, otherwise ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def module_of(node: ast.ImportFrom, file: str) -> str:
    """The absolute name of the module that a `from` import names."""
    if not node.level:
        return node.module or ""
    above = Path(file).with_suffix("").parts[: -node.level]
    return ".".join((*above, node.module) if node.module else above)


def imported_parts(file: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = module_of(node, file)
            # `from dtrain import net` names the part on the right
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "dtrain" else [module]
        else:
            continue
        for name in names:
            if name.startswith("dtrain."):
                yield node.lineno, name.split(".")[1]


def imports_point_down_the_map(file: str, tree: ast.Module) -> Iterator[str]:
    part = part_of(file)
    if part and part not in FLOOR_OF:
        yield f'{file}: "{part}" is not on the map of DESIGN.md'
        return
    for line, other in imported_parts(file, tree):
        if other.startswith("__"):
            continue  # the package's own version
        if other not in FLOOR_OF:
            yield f'{file}:{line}: imports "{other}", which is not on the map of DESIGN.md'
        elif part and other != part and (part, other) not in ALSO and FLOOR_OF[other] >= FLOOR_OF[part]:
            yield f"{file}:{line}: {part} must not import {other}"
        elif not part:
            yield f"{file}:{line}: the package itself must not import {other}"


def only_cli_and_comm_read_the_environment(file: str, tree: ast.Module) -> Iterator[str]:
    if part_of(file) in ENVIRONMENT_READERS:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node) in ("os.environ", "os.environb", "os.getenv"):
            yield f"{file}:{node.lineno}: reads the environment"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            for alias in node.names:
                if alias.name in ("environ", "environb", "getenv"):
                    yield f"{file}:{node.lineno}: reads the environment"


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def only_cli_reads_the_arguments(file: str, tree: ast.Module) -> Iterator[str]:
    if part_of(file) == "cli":
        return
    # under the guard the module is a program of its own, and the arguments are not the user's
    for node in (child for top in tree.body if not is_main_guard(top) for child in ast.walk(top)):
        if isinstance(node, ast.Attribute) and dotted(node) == "sys.argv":
            yield f"{file}:{node.lineno}: reads sys.argv"
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "sys"
            and "argv" in {a.name for a in node.names}
        ):
            yield f"{file}:{node.lineno}: reads sys.argv"


def only_cli_and_metrics_print(file: str, tree: ast.Module) -> Iterator[str]:
    # comm/abort.py speaks when a rank dies and no logger may be left to speak for it
    if part_of(file) in ("cli", "metrics") or file == "dtrain/comm/abort.py":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "print":
            yield f"{file}:{node.lineno}: prints"


def only_cli_exits(file: str, tree: ast.Module) -> Iterator[str]:
    if part_of(file) == "cli" or file == "dtrain/comm/abort.py":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in ("exit", "quit", "sys.exit"):
            yield f"{file}:{node.lineno}: exits"


def no_file_is_a_drawer(file: str, tree: ast.Module) -> Iterator[str]:
    for name in Path(file).with_suffix("").parts:
        if any(word in DRAWERS for word in name.split("_")):
            yield f'{file}: "{name}" says nothing about what is inside'


def nothing_asks_hasattr(file: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "hasattr":
            yield f"{file}:{node.lineno}: hasattr"


def no_function_takes_a_bag(file: str, tree: ast.Module) -> Iterator[str]:
    if file.startswith("dtrain/pycaffe/"):  # pycaffe's scripts pass blobs and parameters by name
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and node.args.kwarg:
            yield f"{file}:{node.lineno}: **{node.args.kwarg.arg}"


def is_abstract_or_final(node: ast.ClassDef, abstract: set[str]) -> bool:
    decorators = {
        dotted(d.func if isinstance(d, ast.Call) else d).split(".")[-1] for d in node.decorator_list
    }
    bases = {dotted(b.value if isinstance(b, ast.Subscript) else b).split(".")[-1] for b in node.bases}
    if "final" in decorators or bases & (ABSTRACT_BASES | VALUE_BASES | abstract):
        return True
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    return any(dotted(d).split(".")[-1] == "abstractmethod" for m in methods for d in m.decorator_list)


def every_class_is_abstract_or_final(file: str, tree: ast.Module) -> Iterator[str]:
    # an exception's heirs are exceptions; so are those of the tree in errors.py
    errors = (
        {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        if part_of(file) == "errors"
        else set()
    )
    errors |= {"DtrainError"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not is_abstract_or_final(node, errors):
            yield f"{file}:{node.lineno}: class {node.name} must be abstract or @final"


RULES: tuple[Rule, ...] = (
    imports_point_down_the_map,
    only_cli_and_comm_read_the_environment,
    only_cli_reads_the_arguments,
    only_cli_and_metrics_print,
    only_cli_exits,
    no_file_is_a_drawer,
    nothing_asks_hasattr,
    no_function_takes_a_bag,
    every_class_is_abstract_or_final,
)


@cache
def sources() -> dict[str, ast.Module]:
    """ "dtrain/..." -> its tree, of every file that a person wrote."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.endswith("_pb2.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def faults(rule: Rule, file: str, code: str) -> list[str]:
    return list(rule(file, ast.parse(textwrap.dedent(code))))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_source_file_keeps_the_rule(rule: Rule) -> None:
    found = [fault for file, tree in sources().items() for fault in rule(file, tree)]
    assert found == []


def test_there_are_sources_to_read() -> None:
    assert len(sources()) > 10
    assert {part_of(file) for file in sources()} >= {
        "errors",
        "metrics",
        "proto",
    }


VIOLATIONS: list[tuple[Rule, str, str]] = [
    (imports_point_down_the_map, "dtrain/comm/mpi.py", "from dtrain.blob import Blob"),
    (imports_point_down_the_map, "dtrain/comm/mpi.py", "import dtrain.kernels.cpu"),
    (imports_point_down_the_map, "dtrain/proto/text.py", "from dtrain.data import reader"),
    (imports_point_down_the_map, "dtrain/layers/relu.py", "from dtrain import net"),
    (imports_point_down_the_map, "dtrain/layers/relu.py", "from ..net import Net"),
    (imports_point_down_the_map, "dtrain/errors.py", "def f():\n    from dtrain.cli import main"),
    (imports_point_down_the_map, "dtrain/net.py", "from dtrain.toolbox import x"),
    (imports_point_down_the_map, "dtrain/toolbox/x.py", "pass"),
    (imports_point_down_the_map, "dtrain/__init__.py", "from dtrain.net import Net"),
    (only_cli_and_comm_read_the_environment, "dtrain/net.py", "import os\nx = os.environ['A']"),
    (only_cli_and_comm_read_the_environment, "dtrain/net.py", "import os\nx = os.environ.get('A')"),
    (only_cli_and_comm_read_the_environment, "dtrain/net.py", "import os\nx = os.getenv('A')"),
    (only_cli_and_comm_read_the_environment, "dtrain/net.py", "from os import environ"),
    (only_cli_reads_the_arguments, "dtrain/comm/mpi.py", "import sys\nx = sys.argv[1:]"),
    (only_cli_reads_the_arguments, "dtrain/net.py", "from sys import argv"),
    (only_cli_and_metrics_print, "dtrain/comm/mpi.py", "print('hello')"),
    (only_cli_exits, "dtrain/net.py", "import sys\nsys.exit(1)"),
    (only_cli_exits, "dtrain/net.py", "exit()"),
    (no_file_is_a_drawer, "dtrain/layers/utils.py", "pass"),
    (no_file_is_a_drawer, "dtrain/layer_helpers/x.py", "pass"),
    (no_file_is_a_drawer, "dtrain/data/cache_manager.py", "pass"),
    (nothing_asks_hasattr, "dtrain/net.py", "x = hasattr(1, 'a')"),
    (no_function_takes_a_bag, "dtrain/net.py", "def f(a, **kwargs): pass"),
    (no_function_takes_a_bag, "dtrain/net.py", "f = lambda **bag: bag"),
    (every_class_is_abstract_or_final, "dtrain/net.py", "class Net: pass"),
    (every_class_is_abstract_or_final, "dtrain/net.py", "@dataclass\nclass Net(Base): pass"),
]


@pytest.mark.parametrize(("rule", "file", "code"), VIOLATIONS)
def test_the_rule_catches_a_violation(rule: Rule, file: str, code: str) -> None:
    assert len(faults(rule, file, code)) == 1


KEPT: list[tuple[Rule, str, str]] = [
    (imports_point_down_the_map, "dtrain/data/lmdb.py", "from dtrain.proto import dtrain_pb2"),
    (
        imports_point_down_the_map,
        "dtrain/layers/relu.py",
        "from .layer import Layer\nfrom ..blob import Blob",
    ),
    (imports_point_down_the_map, "dtrain/cli/main.py", "from dtrain import __version__\nimport dtrain.net"),
    (only_cli_and_comm_read_the_environment, "dtrain/comm/mpi.py", "import os\nx = os.environ['PMI_SIZE']"),
    (only_cli_reads_the_arguments, "dtrain/cli/main.py", "import sys\nx = sys.argv"),
    (only_cli_reads_the_arguments, "dtrain/comm/x.py", "if __name__ == '__main__':\n    main(sys.argv[1:])"),
    (only_cli_and_metrics_print, "dtrain/comm/abort.py", "print('rank 1 died')"),
    (no_file_is_a_drawer, "dtrain/layers/commonplace.py", "pass"),
    (no_function_takes_a_bag, "dtrain/net.py", "def f(*args): g(**x)"),
    (every_class_is_abstract_or_final, "dtrain/net.py", "@final\n@dataclass(frozen=True)\nclass Net: pass"),
    (every_class_is_abstract_or_final, "dtrain/net.py", "class Layer(abc.ABC): pass"),
    (every_class_is_abstract_or_final, "dtrain/net.py", "class Part(NamedTuple): x: int"),
    (
        every_class_is_abstract_or_final,
        "dtrain/net.py",
        "class B(Base):\n    @abstractmethod\n    def f(self): ...",
    ),
    (every_class_is_abstract_or_final, "dtrain/errors.py", "class A(Exception): pass\nclass B(A): pass"),
]


@pytest.mark.parametrize(("rule", "file", "code"), KEPT)
def test_the_rule_lets_good_code_pass(rule: Rule, file: str, code: str) -> None:
    assert faults(rule, file, code) == []


# Kernels: an operator of both folders must look the same from outside.


def arguments(node: ast.FunctionDef) -> str:
    """Names, order, kinds and defaults; annotations may differ, for arrays are of two libraries."""
    bare = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(bare, ast.FunctionDef)
    spec = bare.args
    for arg in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg):
        if arg is not None:
            arg.annotation = None
    return ast.unparse(spec)


def public_face(code: str) -> dict[str, str]:
    """Public functions, classes and methods (with __init__) -> their arguments."""
    face: dict[str, str] = {}
    for node in ast.parse(textwrap.dedent(code)).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            face[node.name] = arguments(node)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            face[node.name] = "class"
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (
                    method.name == "__init__" or not method.name.startswith("_")
                ):
                    face[f"{node.name}.{method.name}"] = arguments(method)
    return face


def kernel_pairs() -> list[str]:
    cpu = {path.name for path in (PACKAGE / "kernels" / "cpu").glob("*.py")}
    cuda = {path.name for path in (PACKAGE / "kernels" / "cuda").glob("*.py")}
    return sorted((cpu & cuda) - {"__init__.py", "storage.py"})  # arrays are made of storage: no operator


def operator_face(name: str, code: str) -> dict[str, str]:
    """The public face of the operator that a file is named after: InnerProduct of inner_product.py."""
    letters = Path(name).stem.replace("_", "")
    face = public_face(code)
    classes = {key for key, args in face.items() if args == "class" and key.lower() == letters}
    return {key: args for key, args in face.items() if key.split(".")[0] in classes}


def test_operators_of_both_folders_have_the_same_face() -> None:
    for name in kernel_pairs():
        cpu, cuda = (
            operator_face(name, (PACKAGE / "kernels" / side / name).read_text()) for side in ("cpu", "cuda")
        )
        assert cpu == cuda, f"kernels/cpu/{name} and kernels/cuda/{name} differ"


def test_the_operator_of_a_file_is_found() -> None:
    assert "Pooling.forward" in operator_face("pooling.py", CPU_KERNEL)
    assert "relu" not in operator_face("pooling.py", CPU_KERNEL)


CPU_KERNEL = """
    def relu(x: np.ndarray, slope: float = 0.0) -> None: ...
    class Pooling:
        def __init__(self, window, bottom, top): ...
        def forward(self, bottom, top): ...
        def _scratch(self): ...
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("slope: float = 0.0", "slope: float = 0.1"),
        ("slope: float = 0.0", "scale: float = 0.0"),
        ("window, bottom, top", "window, top, bottom"),
        ("def forward", "def run"),
        ("class Pooling", "class Pool"),
    ],
)
def test_a_kernel_with_another_face_is_caught(before: str, after: str) -> None:
    assert before in CPU_KERNEL
    assert public_face(CPU_KERNEL) != public_face(CPU_KERNEL.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"), [("np.ndarray", "cupy.ndarray"), ("def _scratch(self)", "def _stream(self, s)")]
)
def test_array_types_and_private_parts_may_differ(before: str, after: str) -> None:
    assert before in CPU_KERNEL
    assert public_face(CPU_KERNEL) == public_face(CPU_KERNEL.replace(before, after))
