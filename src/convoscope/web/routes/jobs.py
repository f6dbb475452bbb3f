"""The room of long work: put in line, watch as server-sent events, stop."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request, Response
from fastapi.responses import StreamingResponse

from .. import schemas
from ..jobs import Job, events
from ..schemas import REFUSALS, JobRequest
from ..serving import bench_of
from ..work import prepare

router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=REFUSALS)

#: what everybody uses when it is there, whoever asked for it
LASTING = ("survey", "embedding")
JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


def _job(request: Request, id: str) -> Job:
    job = bench_of(request).jobs.get(id)
    if job is None:
        raise HTTPException(404, "There is no such job (any more).")
    job.seen()
    return job


@router.get("")
async def jobs(request: Request) -> list[schemas.Job]:
    """The jobs that are remembered, the newest last."""
    return [schemas.Job(**job.to_dict()) for job in bench_of(request).jobs.listed()]


@router.post("", status_code=202)
async def submit(request: Request, asked: JobRequest) -> schemas.Job:
    """Put long work in line. The same work that waits or runs already is returned instead."""
    app_state = bench_of(request)
    key, title, work = await app_state.desk.now(lambda: prepare(app_state, asked))
    return schemas.Job(**app_state.jobs.submit(asked.kind, key, title, work, lasting=asked.kind in LASTING).to_dict())


@router.get("/{id}")
async def job(request: Request, id: JobId) -> schemas.Job:
    """Where a job stands."""
    return schemas.Job(**_job(request, id).to_dict())


@router.delete("/{id}")
async def cancel(request: Request, id: JobId) -> schemas.Job:
    """Stop a job: at once where it waits, at its next step where it runs."""
    found = _job(request, id)
    bench_of(request).jobs.cancel(found)
    return schemas.Job(**found.to_dict())


@router.get(
    "/{id}/files/{name}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The file."}},
)
async def job_file(
    request: Request, id: JobId, name: Annotated[str, Path(pattern=r"^[a-z0-9.-]{1,60}$")]
) -> Response:
    """A file that a job made: a report, a zip file of sheets."""
    found = _job(request, id).files.get(name)
    if found is None:
        raise HTTPException(404, "This job has made no such file.")
    kind, content = found
    headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)


@router.get(
    "/{id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "state, progress and frame events."}},
)
async def job_events(request: Request, id: JobId) -> StreamingResponse:
    """The job as server-sent events: `state`, `progress`, `frame`; ends with the job."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events(_job(request, id)), media_type="text/event-stream", headers=headers)
