"""House rules as tests: who may import whom, which room owns which library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tune_cache

PACKAGE = Path(tune_cache.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lower may not import higher; rooms on one level may not import each other.
LEVELS = {
    "errors": 0,
    "devices": 0,
    "signals": 0,
    "specs": 1,
    "segments": 2,
    "audio": 2,
    "datasets": 3,
    "encoders": 3,
    "cache": 4,
    "aggregation": 5,
    "probes": 6,
    "reports": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 10,
    "__init__": 10,  # public names, resolved lazily
}
# A library is imported only in its room; None means anywhere.
OWNERS = {
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "av": {"audio"},
    "muq": {"encoders.muq"},
    "transformers": {"encoders.muq"},
    "torchaudio": {"audio", "encoders.muq"},
    "zarr": {"cache.assemble"},
    "h5py": {"cache.hdf5"},
    "pyarrow": {"cache.exchange.parquet"},
    "matplotlib": {"reports.figures"},
    "typer": {"cli"},
    "rich": {"commands.terminal", "reports.tables", "reports.text"},
    "jinja2": {"reports.page"},
    "markupsafe": {"reports.page"},
    "umap": {"reports.page.tracks"},
    "sqlite3": {"cache.inventory", "reports.results"},
}
LONGEST_MODULE = 350


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> list[tuple[str, int, bool]]:
    """Every import as (module, line, inside a function or TYPE_CHECKING block)."""
    tree = ast.parse(path.read_text("utf-8"))
    inner: set[int] = set()
    for node in ast.walk(tree):
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if deferred:
            inner |= {id(child) for child in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "tune_cache" or (node.module or "").startswith("tune_cache."):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name, node.lineno, id(node) in inner) for name in names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_one_way(path):
    here = room_of(path)
    assert here in LEVELS, f"{dotted(path)} has no level: DESIGN's tree decides where it lives"
    for module, line, _ in imports_of(path):
        if not module.startswith("tune_cache."):
            continue
        there = module.split(".")[1]
        if there not in LEVELS:  # a public name or __version__
            continue
        assert there == here or LEVELS[there] < LEVELS[here], (
            f"{dotted(path)}:{line} imports {module}, which stands above it"
        )


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_libraries_stay_in_their_rooms(path):
    here = dotted(path)
    for module, line, _ in imports_of(path):
        owners = OWNERS.get(module.split(".")[0])
        allowed = owners is None or any(
            here == owner or here.startswith(owner + ".") for owner in owners
        )
        assert allowed, f"{here}:{line} imports {module}, which belongs to {sorted(owners or ())}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_libraries_are_imported_inside_functions(path):
    heavy = {"torch", "torchaudio", "muq", "transformers", "sklearn", "scipy", "av"}
    heavy |= {"zarr", "h5py", "pyarrow", "jinja2", "markupsafe", "umap", "matplotlib"}
    # a scikit-learn estimator must inherit at import time; stage two imports these rooms lazily
    exempt = {"sklearn": ("aggregation.", "probes.")}
    for module, line, deferred in imports_of(path):
        root = module.split(".")[0]
        if root in heavy and not dotted(path).startswith(exempt.get(root, ("\0",))):
            assert deferred, f"{dotted(path)}:{line} imports {module} at import time"


@pytest.mark.parametrize("room", ["aggregation", "probes"])
def test_stage_two_touches_neither_audio_nor_encoders(room):
    for path in (PACKAGE / room).rglob("*.py"):
        for module, line, _ in imports_of(path):
            assert not module.startswith(("tune_cache.audio", "tune_cache.encoders")), (
                f"{dotted(path)}:{line} imports {module}"
            )


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_stay_short(path):
    n_lines = len(path.read_text("utf-8").splitlines())
    assert n_lines <= LONGEST_MODULE, f"{dotted(path)} has {n_lines} lines: two rooms?"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_open_with_their_purpose(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


UNPICKLERS = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "jsonpickle"}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_nothing_is_unpickled(path):
    for module, line, _ in imports_of(path):
        assert module.split(".")[0] not in UNPICKLERS, f"{dotted(path)}:{line} imports {module}"
    assert unpickling(ast.parse(path.read_text("utf-8"))) == []


def unpickling(tree: ast.AST) -> list[int]:
    """Lines of calls that let NumPy or torch unpickle: what is not forbidden by a constant."""
    names = {"torch": "torch"}  # what a name in the module stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "read_pickle":
            found.append(node.lineno)
        if not isinstance(node, ast.Call):
            continue
        given = {
            keyword.arg: getattr(keyword.value, "value", None)  # None where it is no constant
            for keyword in node.keywords
        }
        root, _, rest = ast.unparse(node.func).partition(".")
        called = ".".join(filter(None, (names.get(root, root), rest)))
        is_loose = called == "torch.load" and given.get("weights_only") is not True
        if is_loose or given.get("allow_pickle", False) is not False:
            found.append(node.lineno)
        elif called == "numpy.load" and (len(node.args) > 2 or None in given):
            found.append(node.lineno)  # allow_pickle by its place, or by what ** holds
    return found


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("np.load(f, allow_pickle=True)", True),
        ("np.load(f, allow_pickle=asked)", True),
        ("np.load(f, None, True)", True),
        ("np.load(f, **options)", True),
        ("np.lib.format.read_array(f, allow_pickle=True)", True),
        ("np.load(f)", False),
        ("np.load(f, mmap_mode='r', allow_pickle=False)", False),
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("torch.load(f, weights_only=safe)", True),
        ("torch.load(f, 'cpu', weights_only=True)", False),
        ("t.load(f)", True),
        ("load(f)", True),
        ("pd.read_pickle(f)", True),
        ("json.load(f)", False),
    ],
)
def test_the_look_for_unpickling_finds_it(code, is_found):
    head = "import numpy as np\nimport torch as t\nfrom torch import load\n"
    assert unpickling(ast.parse(head + code)) == ([4] if is_found else [])
