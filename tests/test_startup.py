import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from operators.cpu import compilation
from operators.runtime import idle

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "lightning",
    "torchmetrics",
    "numba",
    "llvmlite",
    "sympy",
    "kornia",
    "scipy",
    "matplotlib",
    "datasets",
)

REFUSED = {
    "mixer=nope": "mixer='nope' is not known",
    "pde.sate=3": "did you mean 'state'",
    "pde.state=x": "pde.state='x' must be an integer",
    "pde.boundary=x": "pde.boundary='x' is not known",
    "pde.forcing=steady pde.terms=[diffusion]": "needs decay",
    "pde.tensor=full pde.method=separable": "use pde.method=fft",
    "mixer=attention mixer.heads=x": "heads='x' must be an integer or null",
    "mixer=attention mixer.backend=x": "backend of attention='x' is not known",
    "mixer=attention mixer.name=nope": "mixer='nope' is not known",
    "mixer=ss2d mixer.orders=3": "orders=3 must be a list",
    "mixer=hybrid mixer.pattern=[pde_ssm,nope]": "mixer='nope' is not known",
    "shell.gate=x": "shell.gate='x' is not known",
    "trainer.max_epochs=x": "trainer.max_epochs='x' must be",
    "trainer.precision=8": "trainer.precision=8 is not known",
    "trainer.strategy=x": "trainer.strategy='x' is not known",
    "+trainer.nope=3": "trainer has no 'nope'",
    "data.batch_size=x": "data.batch_size='x' must be",
    "data.batch_size=-1": "data.batch_size=-1 must be an integer >= 1",
    "data.num_workers=-1": "data.num_workers=-1 must be an integer >= 0",
    "data.resolution=-1": "data.resolution=-1 must be an integer >= 1",
    "+data.val_size=-1": "data.val_size=-1 must be an integer >= 1",
    "data.subset=-1": "data.subset=-1 must be above 0",
    "data.augment.crop_pad=29": "data.augment.crop_pad=29 must be a number <= 28",
    "+data.augment.crop_scale=0.5": "data=fashion_mnist_mini is cropped by crop_pad",
    "+data.nope=3": "data has no 'nope'",
    "+data.augment.nope=3": "data.augment has no 'nope'",
    "data=image_folder data.root=/nope": "data.root=/nope does not exist",
    "model.dim=x": "model.dim='x' must be",
    "model.match=x": "model.match='x' must be one budget",
    "task=generation model=vit_nano": "is not made for task=generation",
    "task=generation task.path=x": "task.path='x' is not known",
    "optimizer.lr=x": "optimizer.lr='x' must be",
    "mode=nope": "mode='nope' is not known",
    "init=/nope": "init=/nope does not exist",
    "ckpt=/nope": "ckpt=/nope does not exist",
}

REFUSALS = """
import contextlib, io, json, os, sys
import run
from ablations import __main__ as ablations
answers = {}
for text in json.loads(sys.argv[1]):
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        status = run.main([*text.split(), "hydra.run.dir=" + sys.argv[2]])
    answers[text] = [status, stderr.getvalue()]
from models import benchmark as whole_models
from operators.benchmark import __main__ as benchmark
from tasks import export
others = {
    "--mixers nope": benchmark, "--grids 0": benchmark, "--set conv.kernal=3": benchmark, "--rivals x": benchmark,
    "--batch x": benchmark, "--threads 1000000": benchmark, "--model nope": whole_models,
    "--model vit_nano --dtypes x": whole_models, "no.ckpt out.onnx": export, "no.ckpt /nope/out.safetensors": export,
    "no.ckpt no.safetensors": export, "no.ckpt": export,
}
for text, command in others.items():
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        answers[text] = [command.main(text.split()), stderr.getvalue()]
for text in ("study=nope", "study=pde_terms study.sedes=3", "study=pde_terms study.seeds=x"):
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        answers[text] = [ablations.main(text.split()), stderr.getvalue()]
os.environ["LOCAL_RANK"] = "x"
for command, text in ((run, "seed=0"), (ablations, "study=pde_terms"), (export, "no.ckpt out.safetensors")):
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        answers["LOCAL_RANK=x " + text] = [command.main(text.split()), stderr.getvalue()]
print(json.dumps({"answers": answers, "modules": sorted(sys.modules)}))
"""


def python(*arguments, **environment):
    ours = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=ours, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused") / "run"
    return json.loads(python("-c", REFUSALS, json.dumps(list(REFUSED)), str(folder)))


def test_wrong_words_are_answered_in_one_line(refusals):
    for text, expected in REFUSED.items():
        status, answer = refusals["answers"][text]
        assert status == 2, text
        assert expected in answer
        assert answer.count("\n") == 1, answer


def test_a_launcher_s_variable_that_is_none_is_answered_before_lightning_fails_of_it(refusals):
    answers = [answer for text, answer in refusals["answers"].items() if text.startswith("LOCAL_RANK=x")]
    line = "error: LOCAL_RANK='x' in the environment must be an integer >= 0 and <= 2147483648: unset it\n"
    assert answers == [[2, line]] * 3


def test_wrong_words_are_answered_without_importing_what_takes_seconds(refusals):
    assert {
        text for text, (status, answer) in refusals["answers"].items() if status != 2 or answer.count("\n") != 1
    } == set()
    assert set(HEAVY) & set(refusals["modules"]) == set()


def test_words_that_are_not_of_the_data_do_not_wait_for_numpy(tmp_path):
    words = [
        "mixr=3",
        "mixer=nope",
        "trainer.max_epochs=x",
        "model.dim=x",
        "optimizer.lr=x",
        "pde.state=x",
        "data.batch_size=-1",
    ]
    code = "import sys, run\nstatuses = [run.main([word]) for word in sys.argv[1:]]\n"
    code += "print(statuses, sorted({'numpy', 'PIL', 'ssl'} & set(sys.modules)))"
    assert python("-c", code, *words) == f"{[2] * len(words)} []\n"


def test_operators_imports_nothing_that_takes_long():
    code = "import sys, operators; operators.names(); print('torch' in sys.modules);"
    code += "[operators.describe(name) for name in operators.names()]; operators.create('pde_ssm', 4);"
    code += (
        "print([name for name in ('torch._dynamo', 'numba', 'sympy', 'lightning', 'einops') if name in sys.modules])"
    )
    assert python("-c", code).split("\n")[:2] == ["False", "[]"]


# ---------------------------------------------------------------- idle threads


def entry_points():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
    yield from {ROOT / f"{target.split(':')[0].replace('.', '/')}.py" for target in scripts}
    for folder in ("operators", "models", "tasks", "ablations"):
        for path in (ROOT / folder).rglob("*.py"):
            if '\nif __name__ == "__main__":' in path.read_text():
                yield path


@pytest.mark.parametrize("path", sorted(entry_points()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_entry_point_limits_spinning_before_torch_is_imported(path):
    """First of all below `__main__`, or first in a `main` of a module that imports no torch."""
    tree = ast.parse(path.read_text())
    call = "begin()"
    harmless = ("__future__", "operators.command_line")
    body = [node for node in tree.body[1:] if not (isinstance(node, ast.ImportFrom) and node.module in harmless)]
    if ast.unparse(body[0]).startswith(f"if __name__ == '__main__':\n    {call}"):
        return
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert ast.unparse(main.body[1]) == call
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert python("-c", f"import sys, {module}; print('torch' in sys.modules)") == "False\n"


def test_the_users_wish_holds(monkeypatch):
    for name in (*idle.LIMITS, idle.POLICY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    idle.limit_spinning()
    assert {name: os.environ[name] for name in idle.LIMITS} == {**idle.LIMITS, "GOMP_SPINCOUNT": "7"}
    for name in idle.LIMITS:
        monkeypatch.delenv(name)
    monkeypatch.setenv(idle.POLICY, "ACTIVE")
    idle.limit_spinning()
    assert not set(idle.LIMITS) & set(os.environ)


# ---------------------------------------------------------------- compilation


def test_compilation_is_announced_once_and_only_if_it_takes_long(monkeypatch, capfd):
    def compiler(*_, **__):
        compilation.Timer(0.2, lambda: None).run()
        return lambda function: function

    def compiled(_):
        pass

    monkeypatch.setattr(compilation, "cfunc", compiler)
    monkeypatch.setattr(compilation, "PATIENCE", 30.0)
    compilation.compile_entry(compiled, "quick")
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(compilation, "PATIENCE", 0.0)
    compilation._announce.cache_clear()
    for name in ("slow", "as slow"):
        compilation.compile_entry(compiled, name)
    assert capfd.readouterr().err.count("compiling kernels") == 1
