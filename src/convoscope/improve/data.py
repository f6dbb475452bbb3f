"""Are the labels right, and is every picture new? The audit's figures as findings."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from .audit import Audit, examine
from .copies import Pair
from .diagnose.stage import FEWEST, Case, StageResult
from .finding import Finding
from .labels import TOLERATED, Suspects
from .statistics import LEVEL, Interval, share

#: p value below which the suspects are kept from the stages that follow
SURE = 0.001
#: a class with fewer than this part of the usual number of pictures has few
FEW = 0.25
#: share of two classes' pictures that may be taken for the other before they are called confused
KIN = 0.1


class DataStage:
    """See the module."""

    name = "data"
    tests = 0

    def run(self, case: Case) -> StageResult:
        """Audit the collection and conclude."""
        found = examine(case)
        findings: list[Finding] = []
        tests = 0
        misses = []
        if found.suspects is not None and len(found.suspects.rows) >= FEWEST:
            wrong, tests = _wrong(case, found, found.suspects)
            findings += wrong
            misses.append(f"labels wrong in fewer than {TOLERATED:.0%} of the pictures, or where classes overlap")
        findings += _leaks(case, found)
        findings += _copies(case, found)
        for made, count in (_few(case, found), _kin(case, found)):
            findings += made
            tests += count
        if case.train is None:
            misses.append("copies of training pictures (give --train)")
        refused = None
        if len(found.uris) < 2:
            refused = "one picture alone has nothing to be compared with."
        elif not found.names and not findings:
            misses.append("everything about labels: there are none")
        return StageResult(findings, tests, refused, "; ".join(misses), {"tables": _tables(found)})


def _wrong(case: Case, audit: Audit, found: Suspects) -> tuple[list[Finding], int]:
    """Wrong labels over all, or those of the two classes whose labels are exchanged most."""
    misfit = found.misfit
    pairs = sorted(
        {(min(a, b), max(a, b)) for a, b in zip(found.given[misfit], found.suggested[misfit], strict=True)}
    )
    tests = 1 + len(pairs)
    estimate, p, chosen, total, where = found.wrong, found.p, misfit, len(found.rows), ""
    couples = {(a, b): int(found.between(a, b)[2].sum()) for a, b in pairs}
    most = max(couples, key=lambda one: couples[one], default=None)
    if most is not None and (couples[most] > misfit.sum() / 2 or p * tests > LEVEL):
        rate, own, exchanged = found.between(*most)
        if own < p:  # only where it is surer: of labels that are wrong anywhere, all count
            estimate, p, chosen = rate, own, exchanged
            total = int(np.isin(found.given, most).sum())
            where = f" of {audit.names[most[0]]} and {audit.names[most[1]]}"
    if not chosen.any():
        return [], tests
    misfits = [place for place in found.order if chosen[place]]
    if p < SURE:
        case.known["wrong labels"] = found.rows[chosen]
    scale = total / len(found.rows)
    low, high = round(estimate.low * total), round(estimate.high * total)
    exchange = ": they are exchanged" if where else ""
    said = f"About {round(estimate.mean * total)} of {total} labels{where} look wrong ({low} to {high}){exchange}"
    uris = tuple(audit.uris[int(found.rows[place])] for place in misfits[:6])
    return [
        Finding(
            "data", f"{said}.", estimate.mean, estimate.low, estimate.high, None, uris,
            "Where classes overlap, a picture that is labelled right can look wrong: go through them by eye.",
            case.command("audit", *case.train_words, "--out", "audit"), estimate.low * scale, p,
            {"what": "labels", "suspects": [audit.uris[int(found.rows[place])] for place in misfits]},
        )
    ], tests  # fmt: skip


def _how(found: list[Pair]) -> str:
    exact, mirrored = sum(one.exact for one in found), sum(one.mirrored for one in found)
    parts = [f"{exact} byte for byte" if exact else "", f"{mirrored} mirrored" if mirrored else ""]
    rest = len(found) - exact - mirrored
    parts.append(f"{rest} changed a little" if rest else "")
    return ", ".join(part for part in parts if part)


def _leaks(case: Case, audit: Audit) -> list[Finding]:
    leaked = audit.leaked
    train = case.looked_train
    if not leaked or train is None:
        return []
    best = {one.a: one for one in reversed(audit.across)}
    size = share(len(leaked), len(audit.uris))
    figures = audit.accuracy_without(leaked)
    without = ""
    if figures is not None:
        without = f" Accuracy is {figures[0].mean:.1%} with them and {figures[1].mean:.1%} without."
    shown = [uri for row in leaked[:3] for uri in (audit.uris[row], train.pictures.uris[best[row].b])]
    return [
        Finding(
            "data",
            f"{len(leaked)} of {len(audit.uris)} pictures are in the training pictures, too "
            f"({_how([best[row] for row in leaked])}).{without}",
            size.mean, size.low, size.high, None, tuple(shown),
            "Two photographs taken in a row can look like a copy." if not all(best[r].exact for r in leaked) else "",
            case.command("audit", *case.train_words, "--out", "audit"), size.mean, None,
            {"what": "leaks", "rows": [audit.uris[row] for row in leaked]},
        )
    ]  # fmt: skip


def _copies(case: Case, audit: Audit) -> list[Finding]:
    copied = audit.copied
    if not copied:
        return []
    surplus = [row for rows in copied for row in rows[1:]]
    size = share(len(surplus), len(audit.uris))
    disputed = [rows for rows in copied if len({int(audit.given[row]) for row in rows if audit.given[row] >= 0}) > 1]
    more = f" {len(disputed)} of them are labelled differently." if disputed else ""
    shown = [audit.uris[row] for rows in (disputed or copied)[:3] for row in rows[:2]]
    best = {one.b: one for one in reversed(audit.inside)}
    kinds = [best[row] for row in surplus if row in best]
    return [
        Finding(
            "data",
            f"{len(surplus)} of {len(audit.uris)} pictures are copies of others ({_how(kinds)}): they count "
            f"twice.{more}",
            size.mean, size.low, size.high, None, tuple(shown),
            "Two photographs taken in a row can look like a copy." if not all(one.exact for one in kinds) else "",
            case.command("audit", *case.train_words, "--out", "audit"), size.mean, None,
            {"what": "copies", "rows": [audit.uris[row] for row in surplus]},
        )
    ]  # fmt: skip


def _few(case: Case, audit: Audit) -> tuple[list[Finding], int]:
    """Classes with few training pictures (or few here) whose recall is lower than that of the others."""
    counts = audit.train_counts if audit.train_counts is not None else audit.counts
    looked = case.looked
    if len(counts) < 3 or looked.scores is None:
        return [], 0
    usual = float(np.median(list(counts.values())))
    kind = "training " if audit.train_counts is not None else ""
    few = [name for name, count in counts.items() if count < FEW * usual]
    known, right = looked.pictures.known, looked.right
    findings = []
    tests = 0
    for name in few:
        own = known & np.array([label == name for label in looked.pictures.labels])
        rest = known & ~own
        if not own.any() or not rest.any():
            continue
        tests += 1
        hits, others = int(right[own].sum()), int(right[rest].sum())
        p = float(
            stats.fisher_exact([[hits, own.sum() - hits], [others, rest.sum() - others]], alternative="less").pvalue
        )
        recall, usual_recall = share(hits, int(own.sum())), share(others, int(rest.sum()))
        gap = usual_recall.mean - recall.mean
        if gap <= 0:
            continue
        wide = Interval(gap, min(gap, usual_recall.low - recall.high), max(gap, usual_recall.high - recall.low))
        missed = [uri for uri, at, ok in zip(looked.pictures.uris, own, right, strict=True) if at and not ok]
        # balanced as if every class had as many pictures: a rare class must not hide behind its rarity
        worth = max(0.0, wide.low) / len(counts)
        findings.append(
            Finding(
                "data",
                f"{name} has {counts[name]} {kind}pictures, the "
                f"other classes about {usual:.0f}; {recall.mean:.0%} are right, of the others {usual_recall.mean:.0%}.",
                wide.mean, wide.low, wide.high, name, tuple(missed[:6]),
                "A class can be harder than others, too: only more pictures of it tell, and help most.",
                case.command("repair", "--how", "head", "--out", "fixed.safetensors"), worth, p,
                {"what": "few", "count": counts[name], "usual": usual}, tuple(missed),
            )
        )  # fmt: skip
    return findings, tests


def _kin(case: Case, audit: Audit) -> tuple[list[Finding], int]:
    """Two classes taken for each other both ways, more often than is usual: found on half A, tested on half B."""
    looked = case.looked
    if looked.scores is None or not audit.kin:
        return [], 0
    a_half = case.half_a
    known = looked.pictures.known
    best, most = None, 0
    for first, second, *_ in audit.kin:
        hits = _exchanged(case, audit, first, second, known & a_half)
        if hits > most:
            best, most = (first, second), hits
    if best is None:
        return [], 1
    of = known & ~a_half & np.isin(audit.given, best)
    hits = _exchanged(case, audit, *best, known & ~a_half)
    size = share(hits, int(of.sum()))
    p = float(stats.binomtest(hits, int(of.sum()), KIN, alternative="greater").pvalue) if of.any() else 1.0
    if size.low <= KIN:
        return [], 1
    one, other = audit.names[best[0]], audit.names[best[1]]
    uris = [uri for uri, at, ok in zip(looked.pictures.uris, of, looked.right, strict=True) if at and not ok]
    return [
        Finding(
            "data", f"{one} and {other} are taken for each other: {hits} of {int(of.sum())} pictures of the two.",
            size.mean, size.low, size.high, one, tuple(uris[:6]),
            "Labels that are mixed up and classes that look alike give the same confusions: go through the pictures.",
            case.command("audit", *case.train_words, "--out", "audit"),
            size.low * float(np.isin(audit.given, best).mean()), p, {"what": "kin", "other": other},
        )
    ], 1  # fmt: skip


def _exchanged(case: Case, audit: Audit, first: int, second: int, among: Any) -> int:
    looked = case.looked
    index = {}
    for at, truth in zip(audit.given, looked.pictures.truth, strict=True):
        if truth >= 0:
            index[int(at)] = int(truth)
    a, b = index.get(first, -2), index.get(second, -2)
    ab = among & (audit.given == first) & (looked.prediction == b)
    ba = among & (audit.given == second) & (looked.prediction == a)
    return int(ab.sum() + ba.sum())


def _tables(audit: Audit) -> list[dict[str, Any]]:
    looked = audit.case.looked
    rows: list[list[Any]] = []
    for name in audit.names:
        own = np.array([label == name for label in looked.pictures.labels]) & looked.pictures.known
        recall = f"{looked.right[own].mean():.1%}" if looked.scores is not None and own.any() else None
        trained = None if audit.train_counts is None else audit.train_counts.get(name, 0)
        rows.append([name, audit.counts[name], trained, recall])
    tables = [{"title": "Classes", "header": ["class", "pictures", "training pictures", "right"], "rows": rows}]
    if audit.kin:
        tables.append({
            "title": "Taken for each other", "header": ["classes", "one way", "the other way", "of"],
            "rows": [[f"{audit.names[a]}, {audit.names[b]}", ab, ba, n] for a, b, ab, ba, n in audit.kin[:10]],
        })  # fmt: skip
    return tables if audit.names else []
