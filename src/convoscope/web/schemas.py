"""What the API takes and gives, typed: the source of ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, RootModel

#: ids of pictures: the beginning of the content's sha256
PictureId = Annotated[
    str, Query(pattern="^[0-9a-f]{16}$", description="A picture's id, as `/api/pictures` gives it.")
]
PicturePath = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="A picture's id.")]
Target = Annotated[
    str | None,
    Query(
        max_length=200,
        description="A class name or number, top1, layer:channel, instance:0, ...; default: the predicted class.",
    ),
]
Against = Annotated[str | None, Query(max_length=200, description="A class to contrast the target with.")]
LayerName = Annotated[str, Query(max_length=300, description="A layer's name, as `/api/layers` gives it.")]
Unit = Annotated[str, Query(max_length=320, description="A unit: layer:channel.")]
Methods = Annotated[
    str, Query(max_length=1000, description="Names of methods between commas; `name@layer` at a layer of its own.")
]
Settings = Annotated[
    list[str] | None,
    Query(alias="set", max_length=64, description="METHOD.NAME=VALUE, as the command line's --set."),
]


class Problem(BaseModel):
    """One sentence that says what is wrong and what to do."""

    detail: str


#: of every endpoint that may refuse
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "What was asked cannot be done; the sentence says why."},
    401: {"model": Problem, "description": "The token is missing."},
    403: {"model": Problem, "description": "Another site's page asked."},
    404: {"model": Problem, "description": "There is no such thing."},
    413: {"model": Problem, "description": "Too large."},
    422: {"model": Problem, "description": "A value that cannot be read."},
    429: {"model": Problem, "description": "Too many wait already: try again in a moment."},
}


class Model(BaseModel):
    """The network that is shown."""

    name: str
    spec: str | None
    weights: str | None
    fingerprint: str
    kind: str
    device: str
    dtype: str
    parameters: int
    layers: int
    classes: list[str] | None
    input: list[int] | None = Field(description="Height and width of the network's input; null: the picture's own.")
    preprocessing: dict[str, Any]
    last_grid: str | None
    notes: list[str]
    default_methods: list[str]
    survey: dict[str, Any] | None = Field(description="The collection: pictures, accuracy, layers; null without one.")
    can: dict[str, bool] = Field(description="Which optional parts are there: survey, map, visualize, trust.")
    against: str | None = Field(default=None, description="The network at `/b` that it is shown beside.")
    version: str
    stamp: str = Field(description="`v` of addresses whose answers may be kept: of this run, its collection.")


class Layer(BaseModel):
    """One named output of the network."""

    name: str
    type: str
    shape: list[int]
    parameters: int
    channels: int | None
    grid: list[int] | None = Field(description="Rows and columns of cells; null where there is no grid.")
    rf: dict[str, Any] | None = Field(description="Receptive field in input pixels: size, stride, offset.")
    default: bool
    main: bool = Field(description="One of the activations that a survey gathers by default.")
    surveyed: bool
    dead: int | None = Field(description="Units that were zero in every picture of the survey.")
    relu: bool


class Layers(RootModel[list[Layer]]):
    """All layers, in the order of the forward."""


class Picture(BaseModel):
    """One picture of the strip."""

    id: str
    name: str
    source: Literal["folder", "upload", "collection"]
    label: str | None


class Pictures(BaseModel):
    """The strip."""

    pictures: list[Picture]
    total: int
    refused: list[str] = []


class PictureDetail(Picture):
    """A picture and how it becomes the network's input."""

    width: int
    height: int
    input: list[int] = Field(description="Height and width of the network's input.")
    input_to_photo: list[list[float]] = Field(description="2×3: x, y of an input pixel's centre to the photo's.")
    in_collection: bool


class Reading(BaseModel):
    """What the network makes of a picture."""

    kind: str
    classes: list[dict[str, Any]]
    target: str | None
    score: float | None
    probability: float | None


class Map(BaseModel):
    """One map, without its values: these are at ``values`` (npy, float32 H×W) and, drawn, at ``image``."""

    model_config = ConfigDict(extra="allow")

    name: str
    method: str
    title: str
    target: str
    layer: str | None
    signed: bool
    unit: str
    reduction: str
    pixels: bool = Field(description="Of single pixels: drawn alone, not over the photo.")
    shape: list[int]
    scale: dict[str, Any]
    doubts: list[str]
    values: str
    image: str


class Explanation(BaseModel):
    """Maps of why the network scores the target as it does."""

    picture: str
    target: str
    score: float | None
    probability: float | None
    prediction: list[dict[str, Any]]
    input_to_photo: list[list[float]]
    input: list[int]
    maps: list[Map]
    refused: dict[str, str]
    slow: list[str] = Field(description="Methods of hundreds of passes, not made here: POST them to /api/jobs.")
    doubts: list[str]
    plan: dict[str, int]
    seconds: float


class Change(BaseModel):
    """Before and after something was taken away."""

    before: Reading
    after: Reading
    drop: float | None
    facts: dict[str, Any]


class Tiles(BaseModel):
    """Channels of a layer on a picture; the values of those listed are at ``values`` (npy, float32 N×h×w)."""

    layer: str
    picture: str
    total: int
    shape: list[int]
    channels: list[dict[str, Any]]
    order: str
    scale: dict[str, Any]
    values: str
    geometry: dict[str, Any] | None
    centres: dict[str, list[float]] | None = Field(description="Centres of the cells in input pixels, x and y.")


class UnitCard(BaseModel):
    """Everything known of one unit."""

    model_config = ConfigDict(extra="allow")

    unit: str
    layer: str
    channel: int
    field: dict[str, Any] | None
    response: dict[str, Any] | None = Field(description="On the picture asked about: its strongest cell.")
    survey: dict[str, Any] | None = Field(
        description="Over the collection: figures, histogram, classes, alike units."
    )
    wanted: dict[str, Any] | None = Field(None, description="The picture that it wants, where one was made.")


class Patches(BaseModel):
    """Pieces of real pictures that a unit fires for."""

    unit: str
    about: str
    field: str
    patches: list[dict[str, Any]]
    notes: list[str]


class Neighbors(BaseModel):
    """The pictures that the network finds most alike."""

    layer: str
    metric: str
    recall: float
    exact: bool
    neighbors: list[dict[str, Any]]


class Collection(BaseModel):
    """The surveyed collection."""

    there: bool
    can_survey: bool
    why_not: str | None
    pictures: int
    name: str | None = None
    layers: list[str] = []
    embeddings: list[str] = []
    accuracy: float | None = None
    wrong: int | None = None
    labelled: int | None = None
    units: list[dict[str, Any]] = []
    notes: list[str] = []


class CollectionMap(BaseModel):
    """Every picture on the plane, in columns of one length."""

    method: str
    layer: str
    title: str
    ids: list[str]
    x: list[float]
    y: list[float]
    label: list[str | None]
    prediction: list[str | None]
    probability: list[float | None]
    wrong: list[bool | None]
    trust: list[float]
    metrics: dict[str, Any]
    notes: list[str]
    placed: dict[str, Any] | None = None


class Mistakes(BaseModel):
    """Where the network is wrong."""

    pictures: int
    wrong: int
    accuracy: float
    confusions: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    confident: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    notes: list[str]


_Short = Annotated[str, Field(max_length=320)]
_Id = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class JobRequest(BaseModel):
    """Long work. ``map``: one slow method on a picture. ``visualize``: the picture that a target wants.
    ``trust``: a verdict on maps. ``survey``: the whole folder. ``embedding``: the map of the collection.
    ``diagnose``, ``shortcuts``, ``audit``, ``diff``, ``dissect``, ``craft``, ``tcav``: the third question, of the
    folder or the collection. ``report``, ``sheets``: the report of, or sheets of maps on, some ``pictures``."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal[
        "map", "visualize", "trust", "survey", "embedding", "diagnose", "shortcuts", "audit", "diff", "dissect",
        "craft", "tcav", "report", "sheets",
    ]  # fmt: skip
    picture: _Id | None = None
    pictures: list[_Id] = Field(default=[], max_length=64)
    only: list[_Short] = Field(default=[], max_length=16)
    tags: list[_Short] = Field(default=[], max_length=8)
    target: _Short | None = None
    against: _Short | None = None
    methods: list[_Short] = Field(default=[], max_length=12)
    layer: _Short | None = None
    settings: list[_Short] = Field(default=[], max_length=32)
    targets: list[_Short] = Field(default=[], max_length=64)
    recipe: _Short | None = None
    objective: Literal["score", "invert", "dream", "fool", "caricature"] = "score"
    steps: Annotated[int, Field(ge=1, le=2048)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    method: Literal["tsne", "umap", "pca"] = "tsne"


class Job(BaseModel):
    """Where long work stands."""

    id: str
    kind: str
    title: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: str | None
    seconds: float | None
    ahead: int = Field(0, description="Jobs that are in line before it.")
