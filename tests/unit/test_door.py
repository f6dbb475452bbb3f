"""Pictures, targets and layers as users of other libraries bring them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )
    return cs.wrap(net.eval(), size=16, mean=0.5, std=0.25, labels=["a", "b", "c"])


def batch(count=3):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_tensor_of_four_dimensions_is_a_batch(model):
    x = batch()
    together, apart = cs.explain(model, x, ["saliency"]), cs.explain(model, list(x), ["saliency"])
    assert isinstance(together, list)
    for one, other in zip(together, apart, strict=True):
        assert np.allclose(one["saliency"].values, other["saliency"].values, atol=1e-6)


def test_pairs_and_loaders_are_pictures(model):
    x = batch(4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(4) % 3), batch_size=2)
    want = cs.explain(model, list(x), ["saliency"])
    for given in (loader, [(one, 1) for one in x], [(one, torch.tensor(0)) for one in x]):
        got = cs.explain(model, given, ["saliency"])
        assert len(got) == 4
        assert np.allclose(got[3]["saliency"].values, want[3]["saliency"].values, atol=1e-6)
    with pytest.raises(cs.UsageError, match="dictionary"):
        cs.explain(model, {"a": x[0]}, ["saliency"])


def test_one_target_a_picture(model):
    x = batch()
    got = cs.explain(model, x, ["saliency"], targets=["a", "c", "a"])
    assert [one.target for one in got] == ["a", "c", "a"]
    for one, picture, target in zip(got, x, ["a", "c", "a"], strict=True):
        want = cs.explain(model, picture, ["saliency"], target=target)
        assert np.allclose(one["saliency"].values, want["saliency"].values, atol=1e-6)
    with pytest.raises(cs.UsageError, match="2 entries for 3"):
        cs.explain(model, x, ["saliency"], targets=["a", "b"])
    with pytest.raises(cs.UsageError, match="not both"):
        cs.explain(model, x, ["saliency"], target="a", targets=["a", "b", "c"])


def test_a_layer_may_be_the_module_itself(model):
    x = batch(1)[0]
    by_module = cs.explain(model, x, ["grad-cam"], layer=model.module[0], target="a")
    by_name = cs.explain(model, x, ["grad-cam"], layer="0", target="a")
    assert np.array_equal(by_module["grad-cam"].values, by_name["grad-cam"].values)
    with pytest.raises(cs.LayerError, match="own modules"):
        cs.explain(model, x, ["grad-cam"], layer=nn.ReLU())


def test_what_comes_back_fits_on_a_screen(model):
    found = cs.explain(model, Image.new("RGB", (16, 16)), ["saliency", "grad-cam"])
    assert len(repr(found).splitlines()) == 3
    assert len(repr(found["saliency"])) < 200
    assert len(repr(found.sheet())) < 120
    for name, heatmap in found.items():
        assert all(f"{name}: {doubt}" in found.doubts for doubt in heatmap.doubts)


def test_a_map_takes_any_colour_map(model):
    found = cs.explain(model, batch(1)[0], ["grad-cam"], target="a")["grad-cam"]
    plain, grey = found.overlay(opacity=1.0), found.overlay(opacity=1.0, cmap="gray")
    assert plain.tobytes() != grey.tobytes()


def test_a_checkpoint_of_transformers_opens_from_its_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3,
        id2label={0: "cat", 1: "dog", 2: "eel"}, label2id={"cat": 0, "dog": 1, "eel": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    net = transformers.ResNetForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "preprocessor_config.json").write_text(
        '{"do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "resample": 3, '
        '"do_center_crop": false, "size": {"height": 32, "width": 48}}'
    )
    model = cs.open_model(f"hf:{tmp_path / 'net'}")
    assert model.labels == ("cat", "dog", "eel")
    assert model.preprocessing.size == (32, 48)
    assert model.preprocessing.interpolation == "bicubic"
    picture = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = cs.explain(model, picture, ["grad-cam"])
    with torch.no_grad():
        want = net(((picture - 0.5) / 0.2)[None]).logits[0]
    assert found.target == model.labels[int(want.argmax())]
    assert abs(found.score - float(want.max())) < 1e-4
    with pytest.raises(cs.ModelError, match=r"config\.json"):
        cs.open_model(f"hf:{tmp_path}")


def test_a_folder_is_explained_from_python_and_not_twice(model, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(
            tmp_path / "pictures" / f"{number}.png"
        )
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    first = cs.explain_folder(model, tmp_path / "pictures", tmp_path / "out", ["saliency"])
    assert len(first.records) == 3
    assert len(first.failed) == 1
    again = cs.explain_folder(model, tmp_path / "pictures", tmp_path / "out", ["saliency"])
    assert again.skipped == 3


class Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.n = nn.BatchNorm2d(8)
        self.r = nn.ReLU()
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.r(self.n(self.c(x))).mean((2, 3)))


def test_a_forward_that_takes_its_pictures_by_keyword_alone():
    class ByKeyword(Grid):
        def forward(self, *, pixel_values, extra=None):
            return super().forward(pixel_values)

    torch.manual_seed(0)
    net = ByKeyword().eval()
    x = batch(1)[0]
    found = cs.explain(cs.wrap(net, size=16, mean=0.0, std=1.0), x, ["saliency"])
    with torch.no_grad():
        assert abs(found.score - float(net(pixel_values=x[None]).max())) < 1e-5


def test_a_forward_in_inference_mode_has_the_same_layers_and_fields():
    class Inference(Grid):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    plain, held = (cs.wrap(kind().eval(), size=16).watched() for kind in (Grid, Inference))
    assert held.last_grid == plain.last_grid
    for name, layer in plain.layers.items():
        if layer.geometry is not None and name in held.layers and held.layers[name].geometry is not None:
            assert held.layers[name].geometry.to_dict() == layer.geometry.to_dict()
    assert held.layers[held.last_grid].geometry is not None


def test_a_quantised_network_keeps_its_grid():
    import torch.ao.quantization as quantization

    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if not engines:
        pytest.skip("this torch has no quantised kernels")

    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.end = quantization.QuantStub(), quantization.DeQuantStub()
            self.c, self.r, self.fc = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Linear(8, 3)

        def forward(self, x):
            return self.end(self.fc(self.r(self.c(self.begin(x))).mean((2, 3))))

    before, torch.backends.quantized.engine = torch.backends.quantized.engine, engines[-1]
    try:
        torch.manual_seed(0)
        net = Quantised().eval()
        net.qconfig = quantization.get_default_qconfig(engines[-1])
        ready = quantization.prepare(net)
        ready(batch(4))
        model = cs.wrap(quantization.convert(ready), size=16, mean=0.0, std=1.0)
        found = cs.explain(model, batch(1)[0], ["eigen-cam"])["eigen-cam"]
        assert found.layer == "r"
        assert found.geometry.to_dict() == {"size": [3, 3], "stride": [2.0, 2.0], "offset": [0.0, 0.0]}
        assert np.ptp(found.values) > 0
    finally:
        torch.backends.quantized.engine = before
