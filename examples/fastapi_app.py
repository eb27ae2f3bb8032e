"""An application of one's own around `MemEditor`: facts go in, questions are answered with where the answer comes from.

uvicorn examples.fastapi_app:app
curl localhost:8000/facts -d '{"statement": "The capital of Japan is Osaka."}' -H 'content-type: application/json'
curl 'localhost:8000/ask?question=What+is+the+capital+of+Japan%3F'
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from memedit import MemEditor
from memedit.memory.fact import Fact, FactInput, Receipt

editor = MemEditor(os.environ.get("MEMEDIT_MODEL", "embedded"), os.environ.get("MEMEDIT_MEMORY", "facts.db"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the memory at the end."""
    with editor:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/facts")
def add(
    fact: FactInput,
) -> Receipt:  # not async: FastAPI runs it in a thread, and the memory is safe to use from several
    """Record a fact."""
    return editor.add_facts([fact])[0]


@app.get("/facts")
def facts(subject: str | None = None) -> list[Fact]:
    """The live facts."""
    return editor.facts(subject=subject)


@app.get("/ask")
def ask(question: str) -> dict[str, object]:
    """Answer a question; where no fact is in scope, the answer is the model's own."""
    answer = editor.ask(question)
    return {
        "answer": answer.text,
        "hops": [str(hop) for hop in answer.hops],
        "edits": [fact.id for fact in answer.edits],
    }
