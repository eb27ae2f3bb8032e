"""OpenAI's client in front of memedit's gateway: one changed base URL, and the model's facts are up to date.

memedit keys create me --role editor
memedit serve --upstream http://localhost:8000/v1
OPENAI_BASE_URL=http://localhost:8321/v1 OPENAI_API_KEY=mk_... python examples/openai_client.py
"""

from __future__ import annotations

from typing import Any

from openai import OpenAI


def main() -> None:
    """Record a fact, ask for it and for what follows from it, and take it back."""
    client = OpenAI()  # the base URL and the key come from the environment
    model = next(iter(client.models.list())).id

    fact = {"subject": "Initech", "relation": "chief executive officer", "object": "Ada Byron"}
    recorded = client.post("/memory/facts", body=fact, cast_to=dict[str, Any])["fact"]
    print(f"Recorded #{recorded['id']}: {recorded['statement']}")

    question = "Who is the CEO of Initech?"
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    print(f"{question} {answer.choices[0].message.content}")
    for edit in (answer.model_extra or {}).get("memedit", {}).get("edits", ()):
        print(f"  from #{edit['id']}: {edit['statement']}")

    print("Streamed: ", end="")
    for chunk in client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True
    ):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    client.delete(f"/memory/facts/{recorded['id']}", cast_to=dict[str, Any])
    print(f"Retracted #{recorded['id']}; asked again: ", end="")
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
