"""Variables, limits and descriptors of the process that are not as usual."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

from tests.hostile.case import FAILED, OK, REFUSED, Case, run
from tests.hostile.making import copy, images, put
from tests.hostile.store import STUDY

FIT = run("hydra.run.dir=outputs/run")
WORKERS = run(
    "data=image_folder", "data.root=tree", "data.resolution=64", "data.batch_size=4", "data.num_workers=2",
    "trainer.max_steps=1", "hydra.run.dir=outputs/run",
)  # fmt: skip
LARGE = run("data.num_workers=2", "data.resolution=112", "hydra.run.dir=outputs/run")
TREE = images({f"tree/{split}/{name}": 12 for split in ("train", "test") for name in ("cat", "dog")})
ANY = (OK, FAILED, REFUSED)


def variable(
    name: str, allowed: tuple[int, ...] = (OK, REFUSED), command: str = FIT, lines: int = 1, **values: str | None
) -> Case:
    return Case(name, command, environment=values, allowed=allowed, seconds=120, lines=lines)


CASES = [
    # launchers
    variable("LOCAL_RANK is a letter", LOCAL_RANK="x"),
    variable("LOCAL_RANK beyond the devices", LOCAL_RANK="7", allowed=ANY),
    variable("RANK is a letter", RANK="x", WORLD_SIZE="1"),
    variable("RANK is empty", RANK=""),
    variable("RANK below zero", RANK="-1"),
    variable("WORLD_SIZE is a letter", RANK="0", LOCAL_RANK="0", WORLD_SIZE="x", MASTER_ADDR="localhost", MASTER_PORT="29400"),
    variable("MASTER_PORT is a word", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost", MASTER_PORT="port"),
    variable("NODE_RANK is a letter", NODE_RANK="x"),
    variable("SLURM with more tasks than devices", SLURM_NTASKS="2", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_JOB_ID="1",
             SLURM_JOB_NAME="train", SLURM_NODEID="0", SLURM_STEP_NODELIST="localhost"),
    variable("SLURM_NTASKS is a word", SLURM_NTASKS="many", SLURM_JOB_ID="1", SLURM_JOB_NAME="train"),
    variable("SLURM_PROCID is a word", SLURM_PROCID="x"),
    variable("SLURM in an interactive shell", SLURM_JOB_ID="1", SLURM_JOB_NAME="bash", SLURM_NTASKS="1", SLURM_PROCID="0"),
    variable("SLURM with tasks per node", SLURM_NTASKS_PER_NODE="4", SLURM_NTASKS="4", SLURM_JOB_ID="1", SLURM_JOB_NAME="x",
             SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0"),
    variable("torchelastic without its agent", TORCHELASTIC_RUN_ID="x", RANK="0", LOCAL_RANK="0", WORLD_SIZE="2",
             GROUP_RANK="0", MASTER_ADDR="localhost", MASTER_PORT="29417"),
    variable("a study under a letter's rank", command="-m ablations study=nothing", LOCAL_RANK="x", allowed=(REFUSED,)),
    # threads and devices
    variable("OMP_NUM_THREADS is a word", OMP_NUM_THREADS="many"),
    variable("OMP_NUM_THREADS is 0", OMP_NUM_THREADS="0"),
    variable("OMP_NUM_THREADS is 10^6", OMP_NUM_THREADS="1000000", allowed=ANY),
    variable("GOMP_SPINCOUNT is a word", GOMP_SPINCOUNT="x"),
    variable("MKL_NUM_THREADS is a word", MKL_NUM_THREADS="x"),
    variable("NUMBA_NUM_THREADS is a word", NUMBA_NUM_THREADS="x", command=run("mixer=mamba")),
    variable("NUMBA_NUM_THREADS is 0", NUMBA_NUM_THREADS="0", command=run("mixer=mamba")),
    variable("numba without compiling", NUMBA_DISABLE_JIT="1", command=run("mixer=mamba")),
    variable("CUDA_VISIBLE_DEVICES of nothing", CUDA_VISIBLE_DEVICES="99"),
    variable("CUDA_VISIBLE_DEVICES is a word", CUDA_VISIBLE_DEVICES="gpu"),
    variable("TORCH_DEVICE_BACKEND_AUTOLOAD is a word", TORCH_DEVICE_BACKEND_AUTOLOAD="x"),
    # folders
    variable("HOME is unset", HOME=None),
    variable("HOME is nowhere", HOME="/proc/nowhere", XDG_CACHE_HOME=None),
    variable("HOME is a device", HOME="/dev/null", XDG_CACHE_HOME=None, command=run("mixer=mamba")),
    variable("the cache is in proc", XDG_CACHE_HOME="/proc/x", command=run("mixer=mamba")),
    variable("the cache is a file", XDG_CACHE_HOME="{root}/pyproject.toml", command=run("mixer=pde_ssm")),
    variable("the cache is empty", XDG_CACHE_HOME="", command=run("mixer=pool")),
    variable("TMPDIR is nowhere", TMPDIR="/proc/nowhere"),
    variable("TMPDIR is in proc", TMPDIR="/proc", allowed=ANY),
    variable("TORCH_HOME is in proc", TORCH_HOME="/proc/x"),
    variable("NUMBA_CACHE_DIR is in proc", NUMBA_CACHE_DIR="/proc/x", command=run("mixer=mamba")),
    variable("TORCHINDUCTOR_CACHE_DIR is in proc", TORCHINDUCTOR_CACHE_DIR="/proc/x"),
    Case("the project's modules are shadowed", FIT, (put("tasks/__init__.py", "x = 1\n"),), (OK, REFUSED),
         environment={"PYTHONPATH": "{work}:{root}"}),
    Case("models is shadowed", "-m ablations.compare nothing", (put("models.py", "raise SystemExit(77)\n"),),
         environment={"PYTHONPATH": "{work}:{root}"}),
    Case("a shadowed study", "-m ablations study=nothing", (put("tasks.py", "x = 1\n"),)),
    # words
    variable("HYDRA_FULL_ERROR is a word", HYDRA_FULL_ERROR="yes", command="run.py model.depht=3", allowed=(REFUSED,)),
    variable("HYDRA_FULL_ERROR is 0", HYDRA_FULL_ERROR="0", command="run.py model.depht=3", allowed=(REFUSED,)),
    variable("output in ASCII", PYTHONIOENCODING="ascii"),
    variable("output in ASCII of a refusal", PYTHONIOENCODING="ascii", command="run.py model.patch=5", allowed=(REFUSED,)),
    variable("output in ASCII of the zoo", PYTHONIOENCODING="ascii", command="-m operators"),
    variable("output in ASCII of a card", PYTHONIOENCODING="ascii", command="-m operators describe pde_ssm"),
    variable("locale C", LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    variable("locale C of the help", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", command="run.py --help"),
    variable("locale of nothing", LC_ALL="xx_YY.UTF-99"),
    variable("a terminal of one column", COLUMNS="1"),
    variable("COLUMNS is a word", COLUMNS="wide", LINES="tall"),
    variable("TERM of nothing", TERM="nothing", FORCE_COLOR="1"),
    variable("warnings are errors", PYTHONWARNINGS="error"),
    variable("PYTHONHASHSEED", PYTHONHASHSEED="4294967295"),
    variable("optimised Python", PYTHONOPTIMIZE="2"),
    variable("optimised Python refuses", PYTHONOPTIMIZE="2", command="run.py mode=test", allowed=(REFUSED,)),
    variable("optimised Python refuses a study", PYTHONOPTIMIZE="2", command="-m ablations study.seeds=x study=mixers", allowed=(REFUSED,)),
    variable("no byte code", PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX="/proc/x"),
    variable("PL_GLOBAL_SEED is a word", PL_GLOBAL_SEED="x"),
    variable("a proxy of nothing", HTTPS_PROXY="http://127.0.0.1:1", HF_HUB_OFFLINE=None,
             command=run("data=cifar10"), allowed=(FAILED, REFUSED), lines=20),  # the Hub's library says when it retries
    variable("the Hub is off", command=run("data=imagenet"), allowed=(FAILED, REFUSED)),
    variable("the autoencoder is on the Hub", command=run("task=generation", "task.autoencoder=stabilityai/sd-vae-ft-ema"),
             allowed=(FAILED, REFUSED)),
    # limits
    Case("32 descriptors", FIT, limits=("nofile=32",), allowed=ANY),
    Case("32 descriptors for data workers", WORKERS, (TREE,), limits=("nofile=32",), allowed=ANY),
    Case("64 KiB of shared memory", WORKERS, (TREE,), mount="64k", allowed=ANY),
    Case("64 KiB of shared memory, images in memory", LARGE, mount="64k", allowed=ANY),
    Case("no room for files", FIT, limits=("fsize=10000",), allowed=(FAILED, REFUSED)),
    Case("no room for an export", "-m tasks.export run/checkpoints/best.ckpt x.safetensors", (copy("run"),), (FAILED, REFUSED),
         limits=("fsize=10000",)),
    Case("no room for a study", "-m ablations study=window.yaml study.dir=outputs/s", (put("window.yaml", STUDY),),
         (FAILED, REFUSED), limits=("fsize=1000",), lines=20),
    Case("500 MB of memory", FIT, limits=("data=500000000",), allowed=ANY),
    Case("500 MB of memory to read a checkpoint in", "run.py mode=test ckpt=run/checkpoints/last.ckpt hydra.run.dir=outputs/x",
         (copy("run"),), ANY, limits=("data=450000000",)),
    Case("20 s of processor time", run("trainer.max_steps=null", "trainer.max_epochs=1000", "hydra.run.dir=outputs/run"),
         allowed=(FAILED, -9, -24, 128 + 9, 128 + 24), limits=("cpu=20",), redirect="2>/dev/null"),
    # descriptors
    Case("standard output is full", FIT, redirect=">/dev/full", allowed=ANY),
    Case("standard output is closed", FIT, redirect=">&-", allowed=ANY),
    Case("standard error is full", "run.py model.depht=3", redirect="2>/dev/full", allowed=(FAILED, REFUSED)),
    Case("standard error is closed", "run.py model.depht=3", redirect="2>&-", allowed=(REFUSED,)),
    Case("standard input is closed", FIT, redirect="<&-", allowed=(OK,)),
    Case("the reader leaves", "-m operators", redirect="| head -1", allowed=(OK,)),
    Case("the reader of the help leaves", "run.py --help", redirect="| head -1", allowed=(OK,)),
    Case("the reader of a comparison leaves", "-m ablations.compare run", (copy("run"),), (OK,), redirect="| true"),
    Case("the table of the zoo on a full device", "-m operators", redirect=">/dev/full", allowed=(FAILED, REFUSED)),
    Case("a comparison on a full device", "-m ablations.compare run", (copy("run"),), (FAILED, REFUSED), redirect=">/dev/full"),
]  # fmt: skip
