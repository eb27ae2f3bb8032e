"""LangChain's ChatOpenAI in front of memedit's gateway: a conversation whose follow-ups are answered from the facts.

memedit add "The CEO of Initech is Ada Byron."
memedit add "Ada Byron is married to Carl Dorn."
memedit keys create me
memedit serve --upstream http://localhost:8000/v1
OPENAI_BASE_URL=http://localhost:8321/v1 OPENAI_API_KEY=mk_... MODEL=the-models-name python examples/langchain_chat.py
"""

from __future__ import annotations

import os

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI


def main() -> None:
    """Ask two questions, of which the second says neither who nor where."""
    chat = ChatOpenAI(model=os.environ.get("MODEL", "default"), include_response_headers=True)
    said: list[BaseMessage] = [SystemMessage("Answer in one sentence.")]
    for question in ("Who is the CEO of Initech?", "And who is her husband?"):
        said.append(HumanMessage(question))
        reply = chat.invoke(said)
        said.append(reply)
        edits = reply.response_metadata["headers"].get("x-memedit-edits", "none")
        print(f"{question} {reply.text}  [edits: {edits}]")


if __name__ == "__main__":
    main()
