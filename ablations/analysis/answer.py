"""The answer to a study's question in one sentence, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablations.analysis import image_differences
from ablations.analysis.axes import budgets, datasets
from ablations.analysis.published import ranking
from ablations.analysis.study import Study
from ablations.analysis.words import Scale, effect_finding, minus, p_said, plural, title, told
from ablations.plan import Objective

MOST_EFFECTS = 3
MOST_CLOSE = 3
OTHER_IMAGES = "for other test images too"


def sentence(study: Study, summary: Mapping[str, Any]) -> str:
    """What the first objective says, block by block; the search's best, or front, of the other kinds.

    A study of nothing but arms with published scores tells first whether their ranks agree.
    """
    objective = study.objectives[0]
    if study.plan.searches:
        return _search(study, summary["search"], summary["level"])
    arms = sum(len(block["objectives"][0]["arms"]) for block in summary["blocks"])
    ranked = ranking.sentence(summary["published"], arms, summary["level"])
    parts = [] if ranked is None else [ranked]
    for block in summary["blocks"]:
        sentences = _block(block["objectives"][0], objective, block, summary["level"])
        parts.append(f"block {block['name']}: {sentences}" if len(summary["blocks"]) > 1 else sentences)
    text = "; ".join(parts)
    # A name of code keeps its case: pde_ssm.
    answer = f"{text[0].upper() if text.partition(' ')[0].strip(':').isalpha() else text[0]}{text[1:]}."
    return answer if study.plan.until is None else f"{answer} {study.plan.until.account(study.looks)}"


def scale_of(result: Mapping[str, Any]) -> Scale:
    """Digits by the intervals of the block: of effects and differences first, of means where there are none."""
    arms = result["arms"]
    halves = [effect["half"] for effect in result["effects"]] + [row["difference_half"] for row in arms]
    known = [half for half in halves if half is not None]
    return Scale.of(result["metric"], known or [row["half"] for row in arms], [row["mean"] for row in arms])


def _block(result: Mapping[str, Any], objective: Objective, block: Mapping[str, Any], level: float) -> str:
    scale = scale_of(result)
    if all(row["mean"] is None for row in result["arms"]):
        return f"no trial has a {scale.title} yet"
    asked, effects = _asked_and_main(result, len(block["factors"]))
    if result["budgets"] and not asked:
        return budgets.sentence(result["budgets"], objective, scale)
    if result["datasets"] and not asked:
        return datasets.sentence(result["datasets"], objective, scale, level)
    if asked or effects:
        return _effects(result, asked, effects, objective, scale, level)
    return _winner(result, scale, level, objective)


def _asked_and_main(
    result: Mapping[str, Any], factors: int
) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """The effects that the study asks for, and the main effects; neither where the answer is about arms."""
    asked = [effect for effect in result["effects"] if effect["asked"]]
    effects = [effect for effect in result["effects"] if effect["kind"] == "main" and not effect["asked"]]
    return asked, effects if asked or len(effects) == factors else []


def intervals(result: Mapping[str, Any], factors: int) -> list[tuple[float, float]]:
    """Low and high ends of the intervals that decide the question of a block with so many factors.

    They are those of the effects that it asks for, or else of its main effects but for negative controls, or else of
    all arms' differences to the best one.
    """
    asked, effects = _asked_and_main(result, factors)
    deciding = asked or [effect for effect in effects if not effect["control"]]
    if deciding:
        return [(effect["low_together"], effect["high_together"]) for effect in deciding]
    return [(pair["low"], pair["high"]) for pair in result["against_best"]]


def _effects(
    result: Mapping[str, Any],
    asked: Sequence[Mapping[str, Any]],
    effects: Sequence[Mapping[str, Any]],
    objective: Objective,
    scale: Scale,
    level: float,
) -> str:
    """First what the study asks, in its order; then the largest other effects, the negative controls, interactions."""
    plain = sorted((effect for effect in effects if not effect["control"]), key=lambda effect: -abs(effect["estimate"]))
    chosen_effects = [*asked, *plain[:MOST_EFFECTS], *(effect for effect in effects if effect["control"])]
    notes = _notes(chosen_effects, len(asked), result, level)
    parts = [
        effect_finding(effect, objective, scale, level, note)
        for effect, note in zip(chosen_effects, notes, strict=True)
    ]
    rest = plain[MOST_EFFECTS:]
    if rest:
        shown = sum(effect["p_together"] < 1 - level for effect in rest)
        parts.append(f"of {len(rest)} further factors, all smaller, {shown} have an effect that is shown")
    others = [effect for effect in result["effects"] if effect["kind"] == "interaction" and not effect["asked"]]
    joint = [effect for effect in others if effect["p_together"] < 1 - level]
    if joint:
        most = max(joint, key=lambda effect: abs(effect["estimate"]))
        where = scale.interval(most[f"low{told(most)}"], most[f"high{told(most)}"])
        where += ", the largest effect of all" if told(most) == "_largest" else ""
        parts.append(f"they interact ({most['subject']} {scale.signed(most['estimate'])}{scale.points}, {where})")
    return "; ".join([*parts, *_effects_on_other_images(chosen_effects, scale, level)])


def _notes(
    effects: Sequence[Mapping[str, Any]], asked: int, result: Mapping[str, Any], level: float
) -> list[tuple[str, str]]:
    """What kind of interval each effect has, told where the kind comes first, and the seeds at the first effect."""
    family, seeds = result["family"], plural(result["fit"]["seeds"], "seed")
    kinds = {"": "", "_together": _together(asked or family), "_largest": f" for the largest of {family} effects"}
    notes: list[tuple[str, str]] = []
    explained = {""}
    for effect in effects:
        kind = told(effect)
        new = not notes or kind not in explained
        explained.add(kind)
        explanation = f", a {100 * level:g} % interval{kinds[kind]}" if new else ""
        notes.append((explanation, "" if notes else f", {seeds}"))
    return notes


def _effects_on_other_images(effects: Sequence[Mapping[str, Any]], scale: Scale, level: float) -> list[str]:
    """The intervals of the effects for other test images too, where these matter, and what they no longer show."""
    rows = [
        {end + images: effect[f"{end}{told(effect)}{images}"] for end in ("low", "high") for images in ("", "_images")}
        for effect in effects
    ]
    if not image_differences.noticed(rows):
        return []
    parts = []
    for effect, row in zip(effects, rows, strict=True):
        if row["low_images"] is None:
            continue
        inside = row["low_images"] <= 0 <= row["high_images"]
        shown = not row["low"] <= 0 <= row["high"] if effect["control"] else effect["p_together"] < 1 - level
        verdict = "" if not (shown and inside) else ", zero within" if effect["control"] else ", not shown"
        parts.append(f"{effect['subject']} {scale.interval(row['low_images'], row['high_images'])}{verdict}")
    return [f"{OTHER_IMAGES}: {', '.join(parts)}"]


def _together(family: int) -> str:
    return f" that holds for {family} effects together" if family > 1 else ""


def _winner(result: Mapping[str, Any], scale: Scale, level: float, objective: Objective) -> str:
    """The best arm, what it is worth over the reference, and which arms cannot be told apart from it.

    The scores chose the arm, so all but its own mean is said with intervals that hold for all pairs of arms together.
    """
    scored = [row for row in result["arms"] if row["mean"] is not None]
    best, chosen = scored[0], result["best"]
    which = "highest" if objective.sign > 0 else "lowest"
    if chosen is None:
        return f"no arm can be called the best: each of {len(scored)} diverged at a seed"
    ranked = sum(not row["diverged"] for row in scored)
    sentences = [f"the {which} {scale.title} is that of {best['title']}: {_chosen(scale, chosen, best['n'], level)}"]
    pairs = {row["arm"]: row for row in result["against_best"]}
    reference = next((row for row in scored if row["reference"]), None)
    if best["reference"] and len(scored) > 1:
        sentences.append("it is the reference")
    elif reference is not None:
        pair = pairs[reference["arm"]]
        where = scale.interval(_negative(pair["high"]), _negative(pair["low"]))
        shown = "" if pair["low"] is None else f", {p_said(pair['p'])} for all pairs"
        size = f"{scale.signed(_negative(pair['difference']))}{scale.points}"
        sentences.append(f"{size} against {reference['title']} ({where}{shown})")
    other_images = _arms_on_other_images(best["title"], chosen, None if best["reference"] else reference, pairs, scale)
    close = [row["title"] for row in pairs.values() if not row["told_apart"]]
    if close:
        more = f" and {len(close) - MOST_CLOSE} more" if len(close) > MOST_CLOSE else ""
        sentences.append(f"not told apart from {', '.join(close[:MOST_CLOSE])}{more}")
    elif len(scored) > 1:
        sentences.append(f"told apart from each of the {len(scored) - 1} others")
    if ranked < len(scored):
        unsafe = [f"{row['title']} ({row['diverged']} of {row['diverged'] + row['n']})" for row in scored[ranked:]]
        more = f" and {len(unsafe) - MOST_CLOSE} more" if len(unsafe) > MOST_CLOSE else ""
        sentences.append(f"not ranked, since runs diverged: {', '.join(unsafe[:MOST_CLOSE])}{more}")
    return "; ".join([*sentences, *other_images])


def _arms_on_other_images(
    name: str,
    chosen: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
    pairs: Mapping[str, Mapping[str, Any]],
    scale: Scale,
) -> list[str]:
    """The intervals of the answer for other test images too, where these matter, and what they no longer tell apart."""
    if not image_differences.noticed([chosen, *pairs.values()]):
        return []
    parts = [] if chosen["low_images"] is None else [
        f"{name} {scale.interval(chosen['low_images'], chosen['high_images'])}"
    ]  # fmt: skip
    if reference is not None and (pair := pairs[reference["arm"]])["low_images"] is not None:
        where = scale.interval(_negative(pair["high_images"]), _negative(pair["low_images"]))
        parts.append(f"against {reference['title']} {where}")
    lost = [
        pair["title"]
        for pair in pairs.values()
        if pair["told_apart"] and pair["low_images"] is not None and pair["low_images"] <= 0 <= pair["high_images"]
    ]
    if lost:
        more = f" and {len(lost) - MOST_CLOSE} more" if len(lost) > MOST_CLOSE else ""
        parts.append(f"not told apart from {', '.join(lost[:MOST_CLOSE])}{more} either")
    return [f"{OTHER_IMAGES}: {', '.join(parts)}"]


def _chosen(scale: Scale, chosen: Mapping[str, Any], seeds: int, level: float) -> str:
    """The best arm's own score, with what its having been chosen takes away from it."""
    value = _with_unit(scale, chosen["mean"])
    if chosen["low"] is None:
        return f"{value} (no interval, {plural(seeds, 'seed')})"
    allowing = f" as the best of {chosen['arms']}" if chosen["arms"] > 2 else ""
    interval = f"{100 * level:g} % interval {scale.interval(chosen['low'], chosen['high'])}{allowing}"
    return f"{value} ({interval}, {plural(seeds, 'seed')})"


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _search(study: Study, result: Mapping[str, Any], level: float) -> str:
    candidates = result["candidates"]
    if not candidates:
        return "No trial has ended with a score yet."
    first, *others = study.objectives
    scale = Scale.of(first.metric, (), [row["values"][first.metric] for row in candidates])
    if study.plan.kind == "pareto" and others:
        members = [row for row in candidates if row["front"]]
        ends = [members[0], members[-1]] if len(members) > 1 else members
        listed = " to ".join(f"{row['arm']} ({_values(study, candidates, row)})" for row in ends)
        each = "one run each, no interval" if all(row["n"] == 1 for row in members) else "means over seeds"
        number = f"{len(members)} of {plural(len(candidates), 'candidate')}"
        return f"{number} are on the front of {_titles(study)}, from {listed}; {each}."
    best = candidates[0]
    settings = ", ".join(f"{name} = {_short(value)}" for name, value in best["parameters"].items())
    value = _with_unit(scale, best["values"][first.metric])
    half = best["halves"][first.metric]
    if half is None:
        spread = "one run, so without an interval, and chosen as the best of all, so more likely too good than too bad"
    else:
        spread = (
            f"{100 * level:g} % interval {scale.half(half)}, {plural(best['n'], 'seed')}, chosen as the best of all"
        )
    number = plural(len(candidates), "candidate")
    return f"The best of {number} reaches {scale.title} {value} ({spread}) with {settings or best['arm']}."


def _titles(study: Study) -> str:
    return " against ".join(title(objective.metric) for objective in study.objectives)


def _values(study: Study, candidates: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> str:
    texts = []
    for objective in study.objectives:
        scale = Scale.of(objective.metric, (), [other["values"][objective.metric] for other in candidates])
        texts.append(f"{scale.title} {_with_unit(scale, row['values'][objective.metric])}")
    return ", ".join(texts)


def _with_unit(scale: Scale, value: float) -> str:
    return f"{scale.value(value)}{' ' if scale.unit else ''}{scale.unit}"


def _short(value: float | str) -> str:
    return minus(f"{value:.3g}") if isinstance(value, float) else value
