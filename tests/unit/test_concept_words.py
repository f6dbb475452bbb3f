"""Units and words: a tiny model with two towers, trained here on the toybox's words, names units that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convoscope as cs
from convoscope.concepts.words import likened, named
from convoscope.models.two_towers import TwoTowers
from convoscope.toybox import CLASSES, draw

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

COUNT, SIDE = 240, 48


@pytest.fixture(scope="module")
def things():
    """Pictures of ten things, and what each is."""
    return [draw(31_000_000 + number, label=CLASSES[number % 10], size=SIDE) for number in range(COUNT)]


def tokenizer():
    words = ["[PAD]", "[UNK]", "[EOS]", "a", "the", *CLASSES]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("$A [EOS]", special_tokens=[("[EOS]", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )


@pytest.fixture(scope="module")
def folder(things, tmp_path_factory):
    """A CLIP of 100,000 weights, trained for some seconds on these pictures and their names."""
    place = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 15, "max_position_embeddings": 6, "eos_token_id": 2, "pad_token_id": 0,
                     "bos_token_id": 3},
        vision_config={**size, "image_size": SIDE, "patch_size": 8},
        projection_dim=32,
    )  # fmt: skip
    towers = transformers.CLIPModel(config)
    words = tokenizer()
    encoded = words([f"a {label}" for label in CLASSES], padding=True, return_tensors="pt")
    x = torch.from_numpy(np.stack([one.image for one in things])).permute(0, 3, 1, 2).float() / 127.5 - 1
    y = torch.tensor([one.class_index for one in things])
    optimiser = torch.optim.AdamW(towers.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=250)
    for _ in range(50):
        for rows in torch.randperm(COUNT).split(48):
            seen = towers.get_image_features(pixel_values=x[rows])
            said = towers.get_text_features(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
            seen, said = (one if isinstance(one, torch.Tensor) else one.pooler_output for one in (seen, said))
            loss = F.cross_entropy(10 * F.normalize(seen, dim=1) @ F.normalize(said, dim=1).T, y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    towers.save_pretrained(place)
    words.save_pretrained(place)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=SIDE, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(place)
    return place


class Planted(nn.Module):
    """A grid whose channel k is high for the pictures of class k, by a table of their bytes; channel 10 is noise."""

    def __init__(self, things):
        super().__init__()
        self.keys = torch.tensor([float(one.image.astype(np.float64).mean()) for one in things])
        self.answers = F.one_hot(torch.tensor([one.class_index for one in things]), 10).float()
        self.answers += 0.2 * torch.rand(len(things), 10, generator=torch.Generator().manual_seed(1))
        noise = torch.rand(len(things), 1, generator=torch.Generator().manual_seed(2))
        self.answers = torch.cat([self.answers, noise], 1)
        self.grid = nn.Identity()
        self.head = nn.Conv2d(11, 10, 1)

    def forward(self, x):
        mean = x.double().mean((1, 2, 3)) * 255
        rows = (mean[:, None] - self.keys[None]).abs().argmin(1)
        cells = self.answers[rows][:, :, None, None] + 0 * x[:, :1, ::8, ::8]
        return self.head(self.grid(cells)).mean((2, 3))


@pytest.fixture(scope="module")
def planted(things):
    torch.manual_seed(0)
    return cs.wrap(Planted(things).eval(), size=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3, labels=CLASSES)


def test_the_towers_know_the_words(folder, things):
    towers = TwoTowers(f"hf:{folder}")
    texts = towers.texts([f"a {label}" for label in CLASSES])
    seen = towers.pictures([one.picture() for one in things])
    assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert ((seen @ texts.T).argmax(1) == [one.class_index for one in things]).mean() > 0.9


def test_units_that_are_known_get_their_names(folder, things, planted):
    pictures = [(one.picture(), None) for one in things]
    found = cs.name_units(
        planted, pictures, text_model=f"hf:{folder}", layers=["grid"], words=CLASSES, texts=["a cat", "a boat"]
    )
    names = {row.unit: row.word for row in found.named}
    assert names == {f"grid:{number}": label for number, label in enumerate(CLASSES)}, "and the noise has none"
    for text in ("cat", "boat"):
        ranked = found.ranked[f"a {text}"]
        assert ranked[0].unit == f"grid:{CLASSES.index(text)}"
        assert ranked[0].p < 0.05
        assert next(row for row in ranked if row.unit == "grid:10").p > 0.05
        assert len(ranked) == 11
    assert set(found.to_dict()) == {"named", "texts"}
    json.dumps(found.to_dict())


def test_random_units_get_no_name():
    random = np.random.default_rng(0)
    likeness = random.normal(size=(400, 20)) * 0.2
    chance = np.stack([random.permutation(400)[:30] for _ in range(1000)], 1)
    best = np.stack([random.permutation(400)[:30] for _ in range(400)], 1)
    _, _, p = named(likeness, best, chance)
    assert (p <= 0.05).mean() < 0.1
    _, q = likened(likeness[:, 0], best, chance)
    assert (q <= 0.05).mean() < 0.1


def test_a_word_fits_by_the_formula():
    random = np.random.default_rng(1)
    likeness = random.normal(size=(50, 4))
    best, chance = np.array([[3, 7], [1, 2], [9, 4]]), np.array([[0, 5], [6, 8], [2, 1]])
    share = np.exp(10 * likeness)
    share /= share.sum(1, keepdims=True)
    belongs = np.linspace(0.998, 0.97, 3)

    def fit(rows):
        return sum(np.log(1 + b * (share[row] - 1)) for row, b in zip(rows, belongs, strict=True))

    prior = np.log(np.mean([np.exp(fit(chance[:, k])) for k in range(2)], axis=0))
    score, word, _ = named(likeness, best, chance)
    for unit in range(2):
        want = fit(best[:, unit]) - prior
        assert word[unit] == want.argmax()
        assert abs(score[unit] - want.max()) < 1e-9


def test_what_does_not_fit_is_refused(folder, things, planted, tmp_path):
    pictures = [(one.picture(), None) for one in things]
    with pytest.raises(cs.ModelError, match=r"no config\.json"):
        cs.name_units(planted, pictures, text_model=f"hf:{tmp_path}")
    with pytest.raises(cs.UsageError, match="too few"):
        cs.name_units(planted, pictures[:20], text_model=f"hf:{folder}")
    with pytest.raises(cs.UsageError, match="at least one word"):
        cs.name_units(planted, pictures, text_model=f"hf:{folder}", texts=[" "])
    with pytest.raises(cs.UsageError, match="at least three"):
        cs.name_units(planted, pictures, text_model=f"hf:{folder}", words=["cat"])
    one_tower = tmp_path / "one"
    transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    ).save_pretrained(one_tower)
    with pytest.raises(cs.ModelError, match="no tower"):
        cs.name_units(planted, pictures, text_model=f"hf:{one_tower}")


def test_a_picture_that_only_the_network_can_read_is_told_and_the_rest_named(folder, things, planted, tmp_path):
    """Between the two readings a file may go: the units' pictures and their places must stay the same pictures."""
    files = []
    for number, one in enumerate(things):
        one.picture().save(tmp_path / f"{number:03d}.png")
        files.append(str(tmp_path / f"{number:03d}.png"))
    towers = TwoTowers(f"hf:{folder}")
    (tmp_path / "000.png").write_bytes(b"")

    def lose(what, done, total):
        if what == "units" and done == total:
            Path(files[40]).unlink()

    found = cs.name_units(planted, files, text_model=towers, layers=["grid"], words=CLASSES, progress=lose)
    assert set(found.failed) == {files[0], files[40]}
    assert found.doubts[0] == "2 pictures could not be read and are left out."
    assert {row.unit: row.word for row in found.named} == {f"grid:{k}": label for k, label in enumerate(CLASSES)}
    for file in files[:-39]:
        Path(file).write_bytes(b"")
    with pytest.raises(cs.UsageError, match="too few"):
        cs.name_units(planted, files, text_model=towers, layers=["grid"], words=CLASSES)


def test_the_command_names_units_of_a_survey(folder, things, tmp_path, cli):
    for number, one in enumerate(things[:60]):
        (tmp_path / "pictures" / one.label).mkdir(parents=True, exist_ok=True)
        one.picture().save(tmp_path / "pictures" / one.label / f"{number}.png")
    answer = cli("survey", "toybox-twin", tmp_path / "pictures", "--out", tmp_path / "store", "--layer", "layer3")
    assert answer.code == 0, answer.err
    asked = ("concepts", "words", tmp_path / "store", "--text-model", f"hf:{folder}", "--text", "a cat")
    answer = cli(*asked, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert set(document) == {"named", "texts"}
    assert len(document["texts"]["a cat"]) == 64
    assert "<h1" in (tmp_path / "out" / "words.html").read_text()
    gone = next((tmp_path / "pictures").rglob("*.png"))
    gone.unlink()
    answer = cli(*asked, "--json")
    assert answer.code == 1, answer.err
    assert gone.name in answer.err
    assert set(json.loads(answer.out)) == {"named", "texts"}
    assert cli(*asked, "--words", tmp_path / "none.txt").code == 2
