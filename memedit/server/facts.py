"""The facts API under /v1/memory: write, list, look up, explain, import and export the facts of a namespace."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, TypeVar

from fastapi import APIRouter, Body, Depends, File, Query, Request, Response, UploadFile
from fastapi import Path as PathParameter

from memedit.errors import BadDataFile, BadRow, UnknownNamespace
from memedit.memory.fact import Fact, FactInput, Receipt
from memedit.memory.interchange import Format, dump_facts, read_facts
from memedit.memory.recall import Progress
from memedit.server.access import Access, needs, services_of
from memedit.server.audit import touched
from memedit.server.records import ALL, Role
from memedit.server.schemas import (
    BATCH_EXAMPLES,
    FACT_EXAMPLES,
    FAILURES,
    Audited,
    AuditPage,
    Batch,
    FactPage,
    Found,
    FoundList,
    Imported,
    Namespaces,
    Question,
    Receipts,
)
from memedit.server.services import Services

_T = TypeVar("_T")

router = APIRouter(prefix="/v1/memory", tags=["facts"], responses=FAILURES)

Reader = Annotated[Access, Depends(needs(Role.READER))]
Editor = Annotated[Access, Depends(needs(Role.EDITOR))]
Admin = Annotated[Access, Depends(needs(Role.ADMIN))]
_MOST = 2**63 - 1
"""The greatest integer that a database holds."""
FactId = Annotated[int, PathParameter(ge=1, le=_MOST, description="The fact's id.", examples=[3])]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of the page.")]
After = Annotated[
    int, Query(ge=0, le=_MOST, description="Only what comes after this id; the `next_after` of the page before.")
]
NewestFirst = Annotated[bool, Query(description="Whether to turn the order round.")]
AsOf = Annotated[
    datetime | None,
    Query(description="As the memory stood then; a time with a time zone.", examples=["2031-01-01T00:00:00Z"]),
]
Subject = Annotated[str | None, Query(description="Only facts about this entity, by any of its names.")]
RelationName = Annotated[str | None, Query(description="Only facts of this relation: its id, label or alias.")]


# -- writing -------------------------------------------------------------------------------------------------


@router.post("/facts", status_code=201, summary="Record a fact")
async def add_fact(
    request: Request, access: Editor, fact: Annotated[FactInput, Body(openapi_examples=FACT_EXAMPLES)]
) -> Receipt:
    """Record a fact, durably. It takes the place of what a single-valued slot held, which stays in the history."""
    services = services_of(request)

    def job() -> tuple[Receipt, list[int]]:
        receipt = services.memory.assert_fact(fact, namespace=access.namespace)
        return receipt, touched([receipt])

    return await _write(services, access, "add", job)


@router.post("/facts/batch", status_code=201, summary="Record facts, all or none")
async def add_facts(
    request: Request, access: Editor, batch: Annotated[Batch, Body(openapi_examples=BATCH_EXAMPLES)]
) -> Receipts:
    """Record facts in one write: all of them, or none where one is bad; the error names its row."""
    services = services_of(request)
    return Receipts(data=await _record(services, access, "add", lambda: batch.facts))


@router.post(
    "/facts/jsonl",
    status_code=201,
    summary="Record facts from JSON Lines, all or none",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string"},
                    "example": '{"subject": "Japan", "relation": "capital", "object": "Osaka"}\n',
                }
            },
        }
    },
)
async def add_jsonl(request: Request, access: Editor) -> Imported:
    """Record the facts of a body of JSON Lines: a fact a line."""
    body = io.BytesIO(await request.body())
    return await _import(request, access, body, "body.jsonl", "jsonl")


@router.post("/import", status_code=201, summary="Record the facts of a file, all or none")
async def import_file(
    request: Request,
    access: Editor,
    file: Annotated[UploadFile, File(description="JSON Lines, CSV, or edits of MQuAKE, CounterFact or zsRE.")],
    format: Annotated[Format | None, Query(description="The file's format; found out if not given.")] = None,  # noqa: A002
) -> Imported:
    """Record the facts of an uploaded file: all of them, or none where a row is bad."""
    return await _import(request, access, file.file, file.filename or "upload.jsonl", format)


@router.delete("/facts/{fact_id}", summary="Retract a fact")
async def retract(request: Request, access: Editor, fact_id: FactId) -> Fact:
    """Cease to believe a fact. It stays in the history."""
    services = services_of(request)

    def job() -> tuple[Fact, list[int]]:
        fact = services.memory.retract(fact_id, namespace=access.namespace)
        return fact, [fact.id]

    return await _write(services, access, "retract", job)


@router.post("/undo", summary="Undo the last write")
async def undo(request: Request, access: Editor) -> FactPage:
    """Take back the last write of the namespace that was not yet undone; the facts it touched, as they are now."""
    services = services_of(request)

    def job() -> tuple[list[Fact], list[int]]:
        facts = services.memory.undo(namespace=access.namespace)
        return facts, [fact.id for fact in facts]

    return FactPage(data=await _write(services, access, "undo", job))


# -- reading -------------------------------------------------------------------------------------------------


@router.get("/facts", summary="List facts")
async def list_facts(
    request: Request,
    access: Reader,
    subject: Subject = None,
    relation: RelationName = None,
    object: Annotated[str | None, Query(description="Only facts whose object is this entity.")] = None,  # noqa: A002
    text: Annotated[str | None, Query(description="Only facts whose statement contains this.")] = None,
    live: Annotated[bool, Query(description="Whether to leave out facts that have ended.")] = True,
    as_of: AsOf = None,
    valid_at: Annotated[datetime | None, Query(description="Only facts that hold then.")] = None,
    limit: Limit = 100,
    after: After = 0,
    newest_first: NewestFirst = False,
) -> FactPage:
    """The facts that pass every filter, in the order of their ids."""
    memory = services_of(request).memory

    def job() -> list[Fact]:
        return memory.facts(
            subject=subject, relation=relation, object=object, text=text, live=live, as_of=as_of, valid_at=valid_at,
            limit=limit + 1, after=after or None, newest_first=newest_first, namespace=access.namespace,
        )  # fmt: skip

    return _page(await _read(services_of(request), job), limit)


@router.get("/facts/{fact_id}", summary="Get a fact")
async def get_fact(request: Request, access: Reader, fact_id: FactId) -> Fact:
    """A fact, live or not."""
    services = services_of(request)
    return await services.work(lambda: services.memory.get(fact_id, namespace=access.namespace))


@router.get("/history", summary="Everything ever recorded")
async def history(
    request: Request,
    access: Reader,
    subject: Subject = None,
    relation: RelationName = None,
    limit: Limit = 100,
    after: After = 0,
) -> FactPage:
    """Live, superseded, retracted and undone facts, oldest first."""
    memory = services_of(request).memory

    def job() -> list[Fact]:
        return memory.facts(
            subject=subject, relation=relation, live=False, limit=limit + 1, after=after, namespace=access.namespace
        )

    return _page(await _read(services_of(request), job), limit)


@router.get("/search", summary="Find facts by meaning")
async def search(
    request: Request,
    access: Reader,
    q: Annotated[str, Query(min_length=1, max_length=2000, examples=["capital of Japan"])],
    k: Annotated[int, Query(ge=1, le=100, description="How many.")] = 10,
) -> FoundList:
    """The live facts most similar to a text, nearest first."""
    services = services_of(request)

    def job() -> list[Found]:
        [hits] = services.view(access.namespace).search(services.memory.embedder.encode([q]), k)
        return [Found(fact=hit.fact, score=min(1.0, max(-1.0, hit.score))) for hit in hits]

    return FoundList(data=await services.work(job))


@router.post("/explain", summary="What would be retrieved for a question, and why")
async def explain(request: Request, access: Reader, asked: Question) -> dict[str, object]:
    """The facts nearest to a question, its plans, and the chains weighed. No language model is called."""
    services = services_of(request)
    found = await services.work(lambda: services.editor.explain(asked.question, namespace=access.namespace))
    return found.to_dict()


@router.get(
    "/export",
    summary="The live facts as a file, which import reads back",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {}, "text/csv": {}}, "description": "The file."}},
)
async def export(
    request: Request,
    access: Reader,
    format: Annotated[Literal["jsonl", "csv"], Query(description="The file's format.")] = "jsonl",  # noqa: A002
    as_of: AsOf = None,
) -> Response:
    """The live facts of the namespace, or those of a past moment."""
    services = services_of(request)
    facts = await _read(services, lambda: services.memory.facts(as_of=as_of, namespace=access.namespace))

    def dump() -> bytes:
        out = io.StringIO(newline="")
        dump_facts(out, facts, format)
        return out.getvalue().encode()

    kind = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
    name = f'attachment; filename="facts.{format}"'
    return Response(await services.work(dump), media_type=kind, headers={"content-disposition": name})


@router.get("/namespaces", summary="The namespaces that the key reaches")
async def namespaces(request: Request, access: Reader) -> Namespaces:
    """The namespaces that something was written to, as far as the key is bound to them."""
    services = services_of(request)
    bound = access.bound
    names = await services.work(services.memory.namespaces)
    return Namespaces(data=[name for name in names if ALL in bound or name in bound])


@router.get("/audit", summary="Who wrote what, and when")
async def audit(request: Request, access: Admin, limit: Limit = 100, after: After = 0) -> AuditPage:
    """The attempts to write to the namespace, oldest first."""
    records = services_of(request).records
    found = await services_of(request).work(lambda: records.entries(access.namespace, after=after, limit=limit + 1))
    data = [Audited.of(entry) for entry in found[:limit]]
    more = len(found) > limit
    return AuditPage(data=data, has_more=more, next_after=data[-1].id if more else None)


# -- helpers -------------------------------------------------------------------------------------------------


async def _write(services: Services, access: Access, action: str, job: Callable[[], tuple[_T, Sequence[int]]]) -> _T:
    return await services.work(services.write, action, access.key, access.client, access.namespace, job)


async def _read(services: Services, job: Callable[[], list[Fact]]) -> list[Fact]:
    """Facts of a namespace; none where nothing was ever written to it, which is no secret to a key bound to it."""
    try:
        return await services.work(job)
    except UnknownNamespace:
        return []


async def _record(
    services: Services,
    access: Access,
    action: str,
    facts: Callable[[], Sequence[FactInput]],
    progress: Progress | None = None,
) -> list[Receipt]:
    def job() -> tuple[list[Receipt], list[int]]:
        receipts = services.memory.assert_facts(facts(), namespace=access.namespace, progress=progress)
        return receipts, touched(receipts)

    return await _write(services, access, action, job)


async def _import(request: Request, access: Access, upload: BinaryIO, filename: str, form: Format | None) -> Imported:
    services = services_of(request)
    progress: Progress | None = getattr(request.state, "progress", None)  # only a caller in this process has one
    receipts = await _record(
        services, access, "import", lambda: _read_upload(upload, filename, form, services), progress
    )
    counts = Counter(receipt.status for receipt in receipts)
    return Imported(
        facts=len(receipts),
        added=counts["added"],
        superseded=counts["superseded"],
        unchanged=counts["unchanged"],
        free_text=sum(receipt.fact.is_free_text for receipt in receipts),
    )


def _read_upload(upload: BinaryIO, filename: str, form: Format | None, services: Services) -> list[FactInput]:
    """The facts of an upload. Messages name the file as the client does, not where it lay here."""
    suffix = Path(filename).suffix[:10]
    name = "upload" + (suffix if suffix[1:].isalnum() and suffix.isascii() else ".jsonl")
    with tempfile.TemporaryDirectory(prefix="memedit-") as folder:
        file = Path(folder) / name
        with file.open("wb") as out:
            shutil.copyfileobj(upload, out)
        try:
            return list(read_facts(file, form, catalogue=services.memory.catalogue))
        except BadRow as error:
            problem, mend, row, _, field = error.args
            raise BadRow(problem, mend, row=row, source=name, field=field) from error
        except BadDataFile as error:
            raise BadDataFile(error.problem.replace(str(file), name), error.mend) from error


def _page(facts: list[Fact], limit: int) -> FactPage:
    data, more = facts[:limit], len(facts) > limit
    return FactPage(data=data, has_more=more, next_after=data[-1].id if more else None)
