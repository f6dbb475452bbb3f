"""The page's API gives what the library gives, computes a question once, and says what is wrong in a sentence."""

from __future__ import annotations

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from PIL import Image
from web_helpers import client, first

import convoscope
from convoscope import ask as probe
from convoscope.web import create_app
from convoscope.web.cache import Cache, key_of, size_of
from convoscope.web.request_queue import BusyError, RequestQueue


def array(web: Any, url: str) -> np.ndarray[Any, Any]:
    answer = web.get(url)
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def picture_file(web: Any, folder: Path, id: str) -> Path:
    name = web.get(f"/api/pictures/{id}").json()["name"]
    return folder / name


def test_maps_are_the_librarys(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    id = first(web)
    asked = {"picture": id, "methods": "grad-cam,saliency,hirescam", "target": "car"}
    found = web.get("/api/explain", params=asked).json()
    expected = convoscope.explain(
        toybox_model, picture_file(web, toybox_folder, id), ["grad-cam", "saliency", "hirescam"], target="car"
    )
    assert found["target"] == "car"
    assert found["score"] == pytest.approx(expected.score, rel=1e-6)
    assert found["input_to_photo"] == expected.fitted.input_to_photo.tolist()
    for one in found["maps"]:
        heatmap = expected[one["name"]]
        values = array(web, one["values"])
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, heatmap.values, rtol=1e-5, atol=1e-8)
        scale = heatmap.scale()
        assert (one["scale"]["low"], one["scale"]["high"]) == pytest.approx((scale.low, scale.high), rel=1e-5)
        assert one["doubts"] == list(heatmap.doubts)
        drawn = np.asarray(Image.open(io.BytesIO(web.get(one["image"]).content)).convert("RGB")).astype(int)
        assert np.abs(drawn - np.asarray(heatmap.overlay()).astype(int)).max() <= 1


def test_a_map_can_be_asked_for_alone_and_with_settings(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    id = first(web)
    query = {"picture": id, "set": ["grad-cam.layer=layer2"]}
    answer = web.get("/api/maps/grad-cam.npy", params=query)
    expected = convoscope.explain(
        toybox_model, picture_file(web, toybox_folder, id), convoscope.GradCAM(layer="layer2")
    )
    np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), expected["grad-cam"].values, rtol=1e-5, atol=1e-8)
    other = array(web, f"/api/maps/grad-cam.npy?picture={id}")
    assert not np.allclose(other, expected["grad-cam"].values)


def test_one_method_at_two_layers(web: Any) -> None:
    found = web.get(
        "/api/explain", params={"picture": first(web), "methods": "grad-cam@layer1,grad-cam@layer3"}
    ).json()
    assert [one["name"] for one in found["maps"]] == ["grad-cam@layer1", "grad-cam@layer3"]
    assert [one["layer"] for one in found["maps"]] == ["layer1", "layer3"]
    a, b = (array(web, one["values"]) for one in found["maps"])
    assert not np.allclose(a, b)


def test_predictions_and_contrast(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    id = first(web)
    found = web.get("/api/predict", params={"picture": id, "count": 10}).json()
    expected = probe.read(toybox_model, picture_file(web, toybox_folder, id))
    assert [row["label"] for row in found["classes"]] == [row["label"] for row in expected.classes]
    assert sum(row["probability"] for row in found["classes"]) == pytest.approx(1, abs=1e-5)
    contrast = web.get("/api/explain", params={"picture": id, "methods": "hirescam", "against": "key"}).json()
    assert contrast["target"] == f"{found['classes'][0]['label']} rather than key"
    by_name = {row["label"]: row["score"] for row in found["classes"]}
    assert contrast["score"] == pytest.approx(found["classes"][0]["score"] - by_name["key"], abs=1e-4)


def test_cover_is_one_window_of_occlusion(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    id = first(web)
    box = {"x0": 0, "y0": 0, "x1": 48, "y1": 48}
    found = web.get("/api/cover", params={"picture": id, **box}).json()
    occlusion = convoscope.Occlusion(window=48, stride=48)
    expected = convoscope.explain(toybox_model, picture_file(web, toybox_folder, id), occlusion)["occlusion"]
    assert found["drop"] / 48**2 == pytest.approx(float(expected.values[10, 10]), abs=1e-6)
    assert found["facts"]["box"] == [0, 0, 48, 48]
    nothing = web.get("/api/cover", params={"picture": id, "x0": 500, "y0": 0, "x1": 600, "y1": 10})
    assert nothing.status_code == 400
    assert "covers no pixel" in nothing.json()["detail"]


def test_switching_a_unit_off_is_ablation(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    import torch

    id = first(web)
    found = web.get("/api/ablate", params={"picture": id, "units": ["layer3:5", "layer3:9"]}).json()
    fitted = toybox_model.prepare(picture_file(web, toybox_folder, id))
    network = toybox_model.module

    def hook(module: Any, given: Any, output: Any) -> Any:
        output = output.clone()
        output[:, [5, 9]] = 0
        return output

    handle = network.layer3.register_forward_hook(hook)
    with torch.no_grad():
        expected = network(fitted.tensor[None])[0]
    handle.remove()
    by_index = {row["index"]: row["score"] for row in found["after"]["classes"]}
    for index, score in by_index.items():
        assert score == pytest.approx(float(expected[index]), abs=1e-4)
    assert found["before"]["classes"] != found["after"]["classes"]


def test_activations_are_the_layers(web: Any, toybox_model: Any, toybox_folder: Path) -> None:
    from convoscope.methods.views import layer_activations

    id = first(web)
    found = web.get("/api/activations", params={"picture": id, "layer": "layer2", "limit": 7}).json()
    _, expected, _ = layer_activations(toybox_model, picture_file(web, toybox_folder, id), "layer2")
    strongest = np.abs(expected).mean((1, 2)).argsort(kind="stable")[::-1][:7]
    assert [row["channel"] for row in found["channels"]] == strongest.tolist()
    np.testing.assert_allclose(array(web, found["values"]), expected[strongest], rtol=1e-5, atol=1e-7)
    geometry = toybox_model.watched().layers["layer2"].geometry
    assert found["centres"]["x"] == geometry.cols.centres.tolist()
    assert found["total"] == len(expected)


def test_likeness_puts_like_channels_side_by_side(web: Any) -> None:
    params = {"picture": first(web), "layer": "layer3", "order": "likeness", "like": 4}
    found = web.get("/api/activations", params=params).json()
    assert found["channels"][0]["channel"] == 4
    values = array(web, found["values"]).reshape(len(found["channels"]), -1)
    centred = values - values.mean(1, keepdims=True)
    cosine = centred @ centred[0] / (np.linalg.norm(centred, axis=1) * np.linalg.norm(centred[0]) + 1e-12)
    assert cosine[1] == pytest.approx(cosine[1:].max(), abs=1e-5)


def test_layers_tell_shape_field_and_place(web: Any, toybox_model: Any) -> None:
    rows = {row["name"]: row for row in web.get("/api/layers").json()}
    assert list(rows) == list(toybox_model.watched().layers)
    assert rows["layer3"]["default"]
    assert rows["layer3"]["channels"] == 96
    assert rows["layer3"]["grid"] == [12, 12]
    assert rows["fc"]["grid"] is None
    geometry = toybox_model.watched().layers["layer1"].geometry
    assert rows["layer1"]["rf"]["size"] == [geometry.rows.size, geometry.cols.size]


def test_slow_methods_are_left_to_jobs(web: Any) -> None:
    params = {"picture": first(web), "methods": "grad-cam,rise"}
    found = web.get("/api/explain", params=params).json()
    assert found["slow"] == ["rise"]
    assert [one["name"] for one in found["maps"]] == ["grad-cam"]
    alone = web.get("/api/maps/rise.npy", params={"picture": first(web)})
    assert alone.status_code == 400
    assert "job" in alone.json()["detail"]


@pytest.mark.parametrize(
    ("path", "params", "said"),
    [
        ("/api/explain", {"methods": "grad-kam"}, "There is no method"),
        ("/api/explain", {"target": "zebra"}, "no class named"),
        ("/api/explain", {"target": "99"}, "There is no class 99"),
        ("/api/explain", {"methods": "grad-cam", "layer": "layer9"}, "no layer"),
        ("/api/explain", {"methods": "grad-cam", "set": "grad-cam.size=3"}, "no setting"),
        ("/api/explain", {"methods": "grad-cam", "set": "nonsense"}, "METHOD.NAME=VALUE"),
        ("/api/explain", {"methods": ",".join(f"grad-cam@layer{i}" for i in range(30))}, "limit"),
        ("/api/maps/nothing.npy", {}, "There is no method"),
        ("/api/activations", {"layer": "fc"}, "not a grid"),
        ("/api/activations", {"layer": "nowhere"}, "no layer"),
        ("/api/activations.npy", {"layer": "layer3", "channels": "9999"}, "channels"),
        ("/api/unit", {"unit": "layer3"}, "is no unit"),
        ("/api/unit", {"unit": "layer3:9999"}, "no channel 9999"),
        ("/api/ablate", {"units": "nowhere:1"}, "no layer"),
        ("/api/patches", {"unit": "layer3:1"}, "no survey"),
        ("/api/collection/map", {}, "no survey"),
        ("/api/colours/nothing", {}, "no colour map"),
        ("/api/filters.png", {"layer": "nowhere"}, "no layer"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(web: Any, path: str, params: dict[str, Any], said: str) -> None:
    answer = web.get(path, params={"picture": first(web), **params})
    assert answer.status_code == 400, (answer.status_code, answer.text)
    detail = answer.json()["detail"]
    assert said in detail
    assert "Traceback" not in detail


def test_an_unknown_picture_is_said(web: Any) -> None:
    for path in ("/api/explain", "/api/predict", "/api/activations"):
        answer = web.get(path, params={"picture": "0" * 16, "layer": "layer3"})
        assert answer.status_code == 400
        assert "There is no picture" in answer.json()["detail"]
    assert web.get("/api/predict", params={"picture": "../x"}).status_code == 422


def test_the_same_question_is_computed_once(toybox_model: Any, toybox_folder: Path) -> None:
    app = create_app(toybox_model, toybox_folder)
    with client(app) as found:
        id = first(found)
        app_state = app.state.app_state
        before = app_state.desk.runs
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: found.get("/api/predict", params={"picture": id}).json(), range(16)))
        assert all(answer == answers[0] for answer in answers)
        assert app_state.desk.runs == before + 1


def test_maps_are_shared_between_questions(toybox_model: Any, toybox_folder: Path, monkeypatch: Any) -> None:
    app = create_app(toybox_model, toybox_folder)
    module = __import__("convoscope.explanation", fromlist=["explain"])
    asked: list[list[str]] = []
    original = module.explain

    def counting(model: Any, picture: Any, methods: Any, **settings: Any) -> Any:
        asked.append([one.about.name for one in methods.values()])
        return original(model, picture, methods, **settings)

    monkeypatch.setattr(module, "explain", counting)
    with client(app) as found:
        id = first(found)
        for methods in ("grad-cam,saliency", "saliency,grad-cam", "grad-cam,saliency,hirescam", "hirescam"):
            assert found.get("/api/explain", params={"picture": id, "methods": methods}).status_code == 200
    assert asked == [["grad-cam", "saliency"], ["hirescam"]]


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = Cache(1000)
    for number in range(20):
        cache.put(str(number), b"x" * 200, 200)
        assert cache.bytes <= 1000
    assert len(cache) == 5
    assert cache.get("0") is None
    assert cache.get("19") == b"x" * 200
    cache.put("huge", b"", 5000)
    assert cache.get("huge") is None
    cache.put("19", b"y", 100)
    assert cache.bytes == 900


def test_the_least_recently_used_goes_first() -> None:
    cache = Cache(300)
    for name in "abc":
        cache.put(name, name, 100)
    cache.get("a")
    cache.put("d", "d", 100)
    assert cache.get("a") == "a"
    assert cache.get("b") is None


def test_keys_tell_questions_apart() -> None:
    assert key_of("a", 1) == key_of("a", 1)
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    different = [
        key_of("a", 1),
        key_of("a", "1"),
        key_of("a1"),
        key_of("a", None),
        key_of(["a", 1]),
        key_of("a", 1, 1),
    ]
    assert len(set(different)) == len(different)
    assert size_of(np.zeros(1000)) >= 8000
    assert size_of({"a": [b"x" * 500]}) >= 500


def apart(work: Any) -> Any:
    """A coroutine's result, from a thread of its own: a browser in this process keeps a loop in the first one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def test_a_full_line_is_said_and_not_queued() -> None:
    desk = RequestQueue(Cache(1000), waiting=3)
    gate = threading.Event()

    async def ask() -> None:
        waiting = [asyncio.create_task(desk.once(str(n), lambda: gate.wait(5))) for n in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(BusyError, match="try again"):
            await desk.once("one more", lambda: None)
        again = asyncio.create_task(desk.once("0", lambda: gate.wait(5)))  # the same question may still join
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*waiting, again)
        assert desk.runs == 3

    apart(ask())
    desk.close()


def test_one_who_goes_away_does_not_cancel_the_others() -> None:
    desk = RequestQueue(Cache(1000))

    async def ask() -> Any:
        gate = threading.Event()

        def work() -> str:
            gate.wait(5)
            return "done"

        leaver = asyncio.create_task(desk.once("q", work))
        stayer = asyncio.create_task(desk.once("q", work))
        await asyncio.sleep(0.05)
        leaver.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        return await stayer

    assert apart(ask()) == "done"
    desk.close()


def test_errors_are_not_kept() -> None:
    desk = RequestQueue(Cache(1000))
    answers = iter([ValueError("first"), "second"])

    def work() -> Any:
        one = next(answers)
        if isinstance(one, Exception):
            raise one
        return one

    async def ask() -> None:
        with pytest.raises(ValueError, match="first"):
            await desk.once("q", work)
        assert await desk.once("q", work) == "second"

    apart(ask())
    desk.close()


def test_the_network_is_left_as_it_was(toybox_model: Any, toybox_folder: Path) -> None:
    before = toybox_model.fingerprint
    state = {name: value.clone() for name, value in toybox_model.module.state_dict().items()}
    with client(create_app(toybox_model, toybox_folder)) as found:
        id = first(found)
        for path in (f"/api/explain?picture={id}", f"/api/ablate?picture={id}&units=layer3:1"):
            assert found.get(path).status_code == 200
    assert toybox_model.fingerprint == before
    assert all((value == state[name]).all() for name, value in toybox_model.module.state_dict().items())
    assert not any(len(m._forward_hooks) for m in toybox_model.module.modules())


def test_the_page_and_its_reader_are_served(web: Any) -> None:
    assert "<title>convoscope</title>" in web.get("/").text
    docs = web.get("/docs").text
    assert "docs.js" in docs
    for text in (docs, web.get("/").text):
        assert "http://" not in text
        assert "https://" not in text
    described = web.get("/openapi.json").json()
    for verbs in described["paths"].values():
        for about in verbs.values():
            assert about["description"], about["operationId"]


def test_methods_come_with_formula_and_paper(web: Any) -> None:
    from convoscope.methods import METHODS
    from convoscope.methods.formulas import FORMULAS

    assert set(FORMULAS) == set(METHODS)
    for row in web.get("/api/methods").json():
        assert row["formula"]
        assert row["paper"]
        assert row["shows"]


def test_the_survey_answers(surveyed: Any, toybox_store: Any) -> None:
    about = surveyed.get("/api/collection").json()
    assert about["there"]
    assert about["pictures"] == 24
    assert about["labelled"] == 24
    id = first(surveyed)
    near = surveyed.get("/api/collection/neighbors", params={"picture": id, "k": 4}).json()["neighbors"]
    row = next(r for r in toybox_store.table(["sha256"]).to_pylist() if r["sha256"].startswith(id))
    expected = toybox_store.neighbors(id=row["sha256"], k=4)
    assert [one["id"] for one in near] == [sha[:16] for sha in expected.ids]
    assert all("/" not in one["name"] for one in near)  # no path of this machine
    made = surveyed.get("/api/collection/map", params={"method": "pca"}).json()
    assert len(made["ids"]) == len(made["x"]) == len(made["wrong"]) == 24
    assert surveyed.get("/api/collection/thumbnail", params={"picture": id}).status_code == 200
    assert surveyed.get("/api/collection/atlas/0").status_code == 200
    assert surveyed.get("/api/collection/atlas/7").status_code == 400


def test_a_units_card_and_patches(surveyed: Any, toybox_store: Any) -> None:
    id = first(surveyed)
    card = surveyed.get("/api/unit", params={"unit": "layer3:23", "picture": id}).json()
    assert card["survey"]["surveyed_as"] == "layer3.1.relu#2"  # the block's output is its last activation's
    assert sum(card["survey"]["histogram"]["counts"]) == 24
    found = surveyed.get("/api/patches", params={"unit": "layer3:23"}).json()
    expected = toybox_store.patches("layer3.1.relu#2:23", guided=False)
    assert [one["value"] for one in found["patches"]] == pytest.approx([one.value for one in expected.items])
    image = Image.open(io.BytesIO(surveyed.get(found["patches"][0]["image"]).content))
    assert image.size == expected.items[0].crop.size
    values = surveyed.get("/api/activations", params={"picture": id, "layer": "layer3", "order": "index"}).json()
    assert values["channels"][23]["max"] == pytest.approx(card["response"]["max"])
    assert surveyed.get("/api/top-patch", params={"unit": "layer3:23"}).status_code == 200


def test_a_layer_that_was_not_surveyed_says_so(surveyed: Any) -> None:
    answer = surveyed.get("/api/patches", params={"unit": "layer2:3"})
    assert answer.status_code == 400
    assert "was not surveyed" in answer.json()["detail"]
    assert surveyed.get("/api/unit", params={"unit": "layer2:3"}).json()["survey"] is None


def test_a_store_of_another_network_is_refused(toybox_folder: Path, toybox_store: Any) -> None:
    other = convoscope.open_model("toybox-twin")
    with pytest.raises(convoscope.ModelError, match="not the surveyed network"):
        create_app(other, toybox_folder, toybox_store.path)


@pytest.mark.parametrize("name", ["toybox-detector", "toybox-segmenter", "toybox-landmarks"])
def test_other_kinds_of_networks_have_answers_to_click(name: str, tmp_path: Path) -> None:
    from convoscope.toybox import write

    try:
        model = convoscope.open_model(name)
    except convoscope.ModelError as error:
        pytest.skip(str(error))
    write(tmp_path / "p", 1, scenes=name != "toybox-landmarks", seed=1)
    with client(create_app(model, tmp_path / "p")) as found:
        id = first(found)
        reading = found.get("/api/predict", params={"picture": id}).json()
        assert reading["kind"] == name.removeprefix("toybox-")
        target = reading["classes"][0]["target"]
        explained = found.get("/api/explain", params={"picture": id, "target": target, "methods": "grad-cam"})
        assert explained.status_code == 200, explained.text
        assert explained.json()["maps"]
