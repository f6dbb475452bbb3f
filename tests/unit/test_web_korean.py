"""What the server says in English has its Korean on the page: method facts, settings, doubts, refusals, verdicts."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import convoscope
from convoscope.methods import METHODS, describe
from convoscope.methods.formulas import FORMULAS

SOURCE = Path(convoscope.__file__).parent
TEXT = (SOURCE / "web" / "static" / "js" / "strings" / "server.js").read_text(encoding="utf-8")
PAIRS = {
    json.loads(key): json.loads(value) for key, value in re.findall(r'("(?:[^"\\]|\\.)*"): ("(?:[^"\\]|\\.)*")', TEXT)
}
#: where the sentences that the page shows are written
FILES = [
    *(SOURCE / name for name in ("doubts.py", "ask.py")),
    *(SOURCE / "surveys" / "ask" / name for name in ("maps.py", "patches.py", "tables.py")),
    *(file for part in ("methods", "targets", "engine", "web") for file in sorted((SOURCE / part).rglob("*.py"))),
]
#: said to a programmer, or by the door before there is a page
NOT_SHOWN = ("module {} has no attribute {}",)


def template(node: ast.expr) -> str | None:
    """A string as written, with {} for each gap."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def sentences(file: Path) -> set[str]:
    found = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }  # fmt: skip
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if not name.endswith(("Error", "Refused", "HTTPException")) and name not in ("doubt", "append"):
            continue
        for argument in call.args:
            text = constants.get(argument.id) if isinstance(argument, ast.Name) else template(argument)
            if text and len(text) > 14 and text[0] in "{ABCDEFGHIJKLMNOPQRSTUVWXYZfos" and text.count(" ") > 1:
                found.add(text)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_every_sentence_has_its_korean(file: Path) -> None:
    missing = {one for one in sentences(file) if one not in PAIRS and one not in NOT_SHOWN}
    assert not missing, missing


def test_the_search_finds_sentences() -> None:
    assert sum(len(sentences(file)) for file in FILES) > 60


def test_every_fact_of_a_method_has_its_korean() -> None:
    facts = {text for one in METHODS.values() for text in (one.about.shows, one.about.unit, one.about.reduction)}
    facts |= {row["help"] for method in describe() for row in method["settings"] if row["help"]}
    # a formula with words in it; one of signs alone is the same in every language
    facts |= {text for text in FORMULAS.values() if re.search(r"[a-z]{3,} [a-z]{2,}", text)}
    assert facts <= set(PAIRS), facts - set(PAIRS)


def test_every_note_of_a_legend_and_part_of_a_verdict_has_its_korean() -> None:
    from convoscope.draw import scales
    from convoscope.trust.verdict import Verdict, _sentence

    parts = set()
    for gain, beats, survives, steady in ((0.3, 1.0, 0.1, 0.9), (0.1, 0.5, 0.9, 0.2), (-0.1, 0.0, None, None)):
        made = Verdict("m", 0.5, 0.2, gain, beats, survives, 0.1, steady, "", error=0.01)
        parts |= set(_sentence(made).rstrip(".").split("; "))
    parts |= {
        "colours show the difference from 0.9, the mean over all masks",
        "a few places stand out: 98 % of the pixels use 3% of the colours",
    }
    assert "no value lies below 0" in Path(scales.__file__).read_text(encoding="utf-8")
    for part in parts:
        assert any(matches(pattern, part) for pattern in PAIRS), part


def matches(pattern: str, text: str) -> bool:
    expression = "(.*?)".join(re.escape(part) for part in pattern.split("{}"))
    return re.fullmatch(expression, text, re.I | re.S) is not None


def test_the_korean_has_the_gaps_of_the_english() -> None:
    for english, korean in PAIRS.items():
        assert re.search("[가-힣]", korean), english
        gaps = {int(number) for number in re.findall(r"\$(\d)", korean)}
        assert not gaps or max(gaps) <= english.count("{}"), english


def test_settings_and_errors_reach_the_page_through_the_translation() -> None:
    """Who shows what the server said asks for it in the person's language; refusals are put into it as they come."""
    api = (SOURCE / "web" / "static" / "js" / "api.js").read_text(encoding="utf-8")
    assert "new Refusal(told(" in api
    scripts = SOURCE / "web" / "static" / "js"
    for file in ("decide.js", "about.js", "app.js", "card.js", "layertab.js", "collection.js"):
        text = (scripts / file).read_text(encoding="utf-8")
        for line in text.splitlines():
            if re.search(r"(?<!told\()\b(verdict\.sentence|verdict\?\.sentence|one\.help|method\.shows)\b", line):
                assert "told(" in line, (file, line.strip()[:160])


#: words that people stumbled over, and what stands in their place now
GIVEN_UP = {
    r"(?<![가-힣])지도": "히트맵, 사진 분포도",
    "이름표|꼬리표": "정답(레이블), 태그",
    "시야": "수용 영역",
    "각자 척도|공통 척도": "맵마다 따로, 같은 눈금",
    "최고 조각": "가장 강하게 반응한 조각",
    "그 안의 무엇": "반응을 일으킨 부분",
    "신뢰도 재기": "히트맵 검증하기",
    "원하는 그림": "가장 좋아하는 그림",
    "무작위 분류기에서도": "분류기를 무작위로 바꿔도",
    "가장 확신한 오류": "확신했지만 틀린 사진",
    "검은 화면에서": "평균색 화면에서",
    r"죽음 ?\{": "죽은 유닛 {n}개",
    r"\{n\} k개": "약 29만 9천 개",
    r"\? trust": "Check this map",
    "cost nothing to find": "The quick checks found no problem",
    r"\bfield \{": "one cell sees",
    r"strongest cell": "row 4, column 12",
    r"1 units are": "1 unit is off",
}


def test_words_that_people_stumbled_over_are_gone() -> None:
    scripts = SOURCE / "web" / "static" / "js"
    for file in (*sorted((scripts / "strings").glob("*.js")), scripts / "words.js"):
        text = file.read_text(encoding="utf-8")
        found = [match.group() for word in GIVEN_UP for match in [re.search(word, text)] if match]
        assert not found, (file.name, found)


#: what stands under a key, word for word: in English where people stumbled over it, and in Korean
SAID = {
    "makeWants": (None, "이 유닛이 가장 좋아하는 그림 만들기"),
    "collection": (None, "사진 모음"),
    "maps": (None, "히트맵"),
    "map": (None, "사진 분포도"),
    "classWord": (None, "클래스"),
    "label": (None, "정답(레이블)"),
    "doubts": (None, "주의할 점"),
    "deadUnits": (None, "죽은 유닛 {n}개"),
    "rather": ("vs this", "이것과 비교"),
    "field": (None, "수용 영역"),
    "ownScale": (None, "맵마다 따로"),
    "sharedScale": (None, "같은 눈금"),
    "patchTiles": (None, "가장 강하게 반응한 조각"),
    "guidedRow": (None, "반응을 일으킨 부분"),
    "trust": (None, "히트맵 검증하기"),
    "trustShort": ("Check this map", "이 히트맵 검증하기"),
    "takenFor": (None, "{label} → {prediction}(으)로 잘못 예측"),
    "confident": (None, "확신했지만 틀린 사진"),
    "noDoubts": ("The quick checks found no problem.", "빠른 점검에서는 문제가 없었습니다."),
    "cellSees": ("one cell sees {size} px", "한 칸이 {size} px를 봄"),
    "strongest": ("row {row}, column {col}", "{row}행 {col}열"),
    "similarityAt": ("{metric} at layer {layer}", "{layer} 층의 {metric}"),
    "cosine": ("cosine similarity", "코사인 유사도"),
    "oneOff": ("1 unit is off", "유닛 1개가 꺼져 있음"),
}


@pytest.mark.parametrize("key", SAID)
def test_the_words_that_were_agreed_stand_there(key: str) -> None:
    folder = SOURCE / "web" / "static" / "js" / "strings"
    for language, wanted in zip(("en", "ko"), SAID[key], strict=True):
        # a key may come again among the formulas: the first is the phrase
        found = re.search(rf'(?<![\w"]){key}: "([^"]*)"', (folder / f"{language}.js").read_text(encoding="utf-8"))
        assert found, (language, key)
        assert wanted is None or found.group(1) == wanted
