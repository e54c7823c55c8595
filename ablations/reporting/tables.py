"""The arm table for people, and everything that is shown or plotted as rows for CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ablations.analysis.answer import scale_of
from ablations.analysis.words import DASH, count, p_value


def arm_table(result: Mapping[str, Any], level: float) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the arms of one objective: scores, differences, costs, how they ended."""
    scale = scale_of(result)
    rows = result["arms"]
    reference = next((row["title"] for row in rows if row["reference"]), None)
    spread = f"{100 * level:g} %"
    header = ["arm", f"{scale.title}{f' ({scale.unit})' if scale.unit else ''}, {spread} interval", "seeds"]
    if reference is not None:
        header += [f"less {reference}, paired", "Holm p"]
    memory = any(row["memory_mb"] is not None for row in rows)
    header += ["parameters", "MACs", "images/s", *(["memory (MB)"] if memory else []), "failures", "learning rate"]
    body = []
    for row in rows:
        texts = [row["title"], f"{scale.value(row['mean'])} {scale.half(row['half'])}".strip(), str(row["n"])]
        if row["reference"]:
            texts += ["reference", DASH]
        elif reference is not None:
            text = f"{scale.signed(row['difference'])} {scale.half(row['difference_half'])}".strip()
            texts += [text, p_value(row["p_holm"]) if row["difference_half"] is not None else DASH]
        texts += [count(row["params"]), count(row["macs"]), count(row["images_per_second"])]
        texts += [count(row["memory_mb"])] if memory else []
        body.append([*texts, _failures(row), _rate(row)])
    return header, body


def everything(summary: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Name of a CSV -> its rows: all that the report shows or plots."""
    tables: dict[str, list[dict[str, Any]]] = {"looks": list(summary["looks"])}
    for block in summary["blocks"]:
        for result in block["objectives"]:
            where = {"block": block["name"], "metric": result["metric"]}
            for name in ("effects", "terms", "controls", "against_best", "images"):
                tables.setdefault(name, []).extend(where | _flat(row) for row in result[name])
            tables.setdefault("arms", []).extend(where | _flat(row) for row in result["arms"])
            for interaction in result["interactions"]:
                names = dict(zip(("first", "second"), interaction["factors"], strict=True))
                for point in interaction["points"]:
                    levels = {f"{key}_level": point[name] for key, name in names.items()}
                    numbers = {key: point[key] for key in ("mean", "half", "n")}
                    tables.setdefault("interactions", []).append({**where, **names, **levels, **numbers})
            for interaction in result["fronts"]:
                tables.setdefault("fronts", []).extend(
                    where | {"cost_metric": interaction["cost"]} | p for p in interaction["points"]
                )
            for name, rows in _along_axes(result, where).items():
                tables.setdefault(name, []).extend(rows)
            for row in (result["power"] or {}).get("seeds_for", ()):
                tables.setdefault("power", []).append(where | row)
        for line in block["curves"]:
            own = {"block": block["name"], "arm": line["arm"], "metric": line["metric"]}
            tables.setdefault("curves", []).extend(own | point for point in line["points"])
        tables.setdefault("effort", []).extend(
            {"block": block["name"], "arm": row["arm"], "seeds": row["seeds"], **point}
            for row in block["effort"]
            for point in row["points"]
        )
        tables.setdefault("tuning", []).extend({"block": block["name"], **row} for row in block["tuning"])
    for setting in summary["published"]:
        for recipe in setting["recipes"]:
            own = {"setting": setting["setting"], "recipe": recipe["name"]}
            for place, model in enumerate(recipe["models"]):
                tables.setdefault("published", []).extend(
                    {**own, "model": model["model"], **arm, "published": arm["published"][place]}
                    for arm in recipe["arms"]
                )
                tables.setdefault("published_ranks", []).append(own | model)
        if setting["together"]:
            row = {"setting": setting["setting"], "recipe": "together", **_flat(setting["together"])}
            tables.setdefault("published_ranks", []).append(row)
    if summary["search"]:
        search = summary["search"]
        tables["candidates"] = [_flat(row) for row in search["candidates"]]
        tables["history"] = list(search["history"])
        tables["importances"] = [
            {"metric": metric, "parameter": name, "importance": share}
            for metric, shares in search["importances"].items()
            for name, share in shares.items()
        ]
    return {name: rows for name, rows in tables.items() if rows}


def over_data(result: Mapping[str, Any], where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Arms over data sets with all digits; what differs between data sets is in columns of their own."""
    rows = []
    for row in result["arms"]:
        own = {key: value for key, value in row.items() if key not in ("by_data", "data")}
        scores = {f"score on {data}": value for data, value in row["data"].items()}
        gains = {f"difference on {data}": gain["difference"] for data, gain in row["by_data"].items()}
        rows.append({**where, **own, **scores, **gains})
    return rows


def _along_axes(result: Mapping[str, Any], where: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Curves, laws and differences over budgets, and arms and profiles over data sets."""
    tables: dict[str, list[dict[str, Any]]] = {}
    along = result["budgets"] or {"arms": (), "differences": ()}
    for row in along["arms"]:
        own = {**where, "arm": row["arm"]}
        tables.setdefault("budget_scores", []).extend(own | point for point in row["points"])
        if row["law"]:
            law = {key: value for key, value in row["law"].items() if key in ("misfit", "seeds")}
            ends = {f"{name} {end}": row["law"][name][end] for name in ("limit", "exponent")
                    for end in ("estimate", "low", "high")}  # fmt: skip
            tables.setdefault("laws", []).append({**own, **ends, **law})
    for row in along["differences"]:
        own = {**where, "arm": row["arm"], "reference": row["reference"]}
        tables.setdefault("budget_differences", []).extend(own | point for point in row["at"])
        if row["crossing"]:
            tables.setdefault("crossings", []).append(own | _flat(row["crossing"]))
    if result["datasets"]:
        tables["over_data"] = over_data(result["datasets"], where)
        tables["profiles"] = [
            {**where, "arm": row["arm"], **point} for row in result["datasets"]["profiles"] for point in row["points"]
        ]
    return tables


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings inside become columns `name/key`, lists JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": inner for name, inner in value.items()}
        else:
            flat[key] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _failures(row: Mapping[str, Any]) -> str:
    endings = [f"{row[state]} {state}" for state in ("diverged", "failed", "pruned") if row[state]]
    pending = row["running"] + row["waiting"]
    return ", ".join([*endings, *([f"{pending} to come"] if pending else [])]) or "0"


def _rate(row: Mapping[str, Any]) -> str:
    rates = ", ".join(f"{rate:g}" for rate in row["learning_rates"])
    word = {"unknown": DASH}.get(row["tuning"], row["tuning"])
    return f"{rates} ({word})" if rates else word
