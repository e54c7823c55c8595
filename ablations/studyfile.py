"""Reading a study's YAML: bounded before it takes memory, and nothing in it but texts, numbers, lists and mappings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from ablations import nodes
from ablations.factors import Factor
from ablations.registration import document
from operators.errors import InputError, check_choice, check_names
from tasks.config import userfiles
from tasks.system.reading import check_file

LARGEST_FILE, MOST_VALUES, DEEPEST, LONGEST = 2**20, 20_000, 20, 10_000
"""Bytes of the file; values in it, those behind aliases counted at each; levels; characters of a text."""
RECORDED, REPEAT = "sections", "-repeat"
"""Key that only the file in a study's directory has; what ends the name of a study that repeats another."""
_WHOLE = 2**53
_REFERENCE = re.compile(r"\$\{(?!oc\.env:)")


def load(study: str) -> dict[str, Any]:
    """The content of a study's YAML: `conf/study/NAME.yaml`, or the file at a path.

    Raises:
        InputError: no such study, or a file that is none.
    """
    path = Path(study)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for file in (Path(conf.__file__).parent / "study").glob("*.yaml")}
        path = known[check_choice("study", study, sorted(known))]
    return {"name": path.stem, **read(path)}


def repeated(content: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The plan in a file's `content`, and the overrides of run.py that belong to it.

    The `study.yaml` of a study's directory repeats that study, with its overrides, as NAME-repeat.
    """
    if RECORDED not in content:
        return dict(content), ()
    node = document.plan_node(content)
    node["name"] = f"{nodes.check_study_name(node.get('name'))}{REPEAT}"
    return node, nodes.strings("given", content.get("given"))


def read(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`, in plain containers, with environment variables (`${oc.env:NAME}`) filled in.

    Raises:
        InputError: it cannot be read, is too large, or holds something else.
    """
    try:
        check_file(path)
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"study={path} is too large: at most {LARGEST_FILE:,} bytes are allowed")
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise InputError(f"study={path} is empty")
        userfiles.check_text(f"study={path}", text, MOST_VALUES)
        loaded = OmegaConf.create(text)
        _check_values(OmegaConf.to_container(loaded, resolve=False), "the study")
        content = OmegaConf.to_container(loaded, resolve=True)
    except RecursionError as error:
        raise InputError(f"study={path} has too many levels: at most {DEEPEST} are allowed") from error
    except InputError:
        raise
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"study={path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"study={path} holds no plan: it must be a mapping with name, question, objectives and blocks")
    return {str(key): value for key, value in content.items()}


def value(option: str, text: str) -> Any:
    """The value of the option `study.OPTION` as YAML has it, in plain containers; raises `InputError` if it is none."""
    try:
        userfiles.check_text(f"study.{option}", text, MOST_VALUES)
        content = yaml.safe_load(text)
        _check_values(content, f"study.{option}")
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"study.{option}={nodes.short(text)} cannot be read as YAML") from error
    return content


def narrowed(node: Mapping[str, Any], blocks: Any = None, levels: Any = None) -> dict[str, Any]:
    """The study of `node` with these `blocks` alone, and of each factor in `levels` with its levels there alone.

    A block keeps those of the levels that it has, in its own order.

    Raises:
        InputError: a block, factor or level that is nowhere in the study, or a reference level left out.
    """
    of_study = [
        nodes.mapping("a block", block, needed=("name", "factors"))
        for block in nodes.items("blocks", node.get("blocks"))
    ]
    if blocks is not None:
        wanted = nodes.strings("study.blocks", blocks)
        check_names("study.blocks", wanted, [block["name"] for block in of_study])
        of_study = [block for block in of_study if block["name"] in wanted]
    asked = {} if levels is None else nodes.mapping("study.levels", levels)
    factors = [{name: Factor.read(name, of) for name, of in block["factors"].items()} for block in of_study]
    check_names("study.levels", asked, {name for of_block in factors for name in of_block})
    for name, kept in asked.items():
        labels = [nodes.switch_label(level) for level in nodes.items(f"study.levels of {name}", kept)]
        having = [of_block[name] for of_block in factors if name in of_block]
        check_names(f"study.levels of {name}", labels, {label: None for factor in having for label in factor.labels})
        for block, of_block in zip(of_study, factors, strict=True):
            if name in of_block:
                reference = (block.get("reference") or {}).get(name)
                if reference is not None and of_block[name].label(reference) not in labels:
                    raise InputError(
                        f"study.levels of {name} leaves out {reference!r}, which block {block['name']} compares with"
                    )
                block["factors"] = {**block["factors"], name: of_block[name].keep(labels)}
    return {**node, "blocks": of_study}


def _check_values(value: Any, where: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise InputError(f"{where} has too many levels: at most {DEEPEST} are allowed")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_values(key, "a key", depth + 1)
            _check_values(inner, str(key), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, where, depth + 1)
    elif isinstance(value, str):
        if len(value) > LONGEST or "\0" in value:
            raise InputError(
                f"{where} holds a text of {len(value):,} characters: at most {LONGEST:,}, none of them NUL"
            )
        if _REFERENCE.search(value):
            raise InputError(f"{where}={value!r}: of ${{…}}, a study takes ${{oc.env:NAME}} alone; YAML has aliases")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}={value} must be finite")
    elif isinstance(value, int) and abs(value) > _WHOLE:
        raise InputError(f"{where} holds an integer beyond 2^53, which no setting takes")
    elif value is not None and not isinstance(value, bool | int | float):
        raise InputError(f"{where}={value!r} must be a text, a number, true, false, null, a list or a mapping")
