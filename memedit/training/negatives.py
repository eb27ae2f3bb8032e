"""Texts that ask for no chain of facts: instructions, code, arithmetic, chat, opinions.

They teach the planner (and the scope classifier) to stay out of what is not theirs. Many name an entity all the same.
"""

from __future__ import annotations

import random

_TASKS = (
    "Write a {form} about {topic}.", "Write me a {form} on {topic}", "Can you draft a {form} about {name}?",
    "Compose a {form} for {name}.", "Summarize the following text in {n} sentences: {sentence}",
    "Translate to {language}: {sentence}", "How do you say '{word}' in {language}?", "Rewrite this more politely: {sentence}",
    "Give me {n} ideas for {topic}.", "List {n} tips for {topic}", "Explain {topic} to a child.", "Make a {form} with {n} items about {topic}.",
    "Proofread: {sentence}", "Fix the grammar: {sentence}", "Suggest a name for {topic}.", "Plan a {n}-day trip for {name}.",
    "Turn this into bullet points: {sentence}", "What rhymes with {word}?", "Describe {topic} in {n} words.",
    "Tell me a joke about {topic}.", "Tell me a story about {name}.", "Imagine {name} meets {name2}. What happens?",
    "What do you think of {name}?", "Why do people like {name}?", "Should I read about {name}?", "Is {name} better than {name2}?",
    "Who would win, {name} or {name2}?", "Compare {name} and {name2}.", "What would {name} say about {topic}?",
    "Act as {name} and answer my questions.", "Classify the sentiment: '{sentence}'", "Extract all names from: {sentence}",
    "Is the following sentence grammatical? {sentence}", "How do I get started with {topic}?", "What is the best way to learn {topic}?",
    "How many letters are there in {word}?", "Spell {word} backwards.", "Use '{word}' in a sentence.", "Define '{word}'.",
    "What is the plural of {word}?", "What is a synonym of {word}?", "Continue the story: {sentence}",
)  # fmt: skip
_CHAT = (
    "Hi!", "Hello, how are you?", "Thanks a lot!", "Good morning", "I'm feeling a bit sad today.", "What can you do?",
    "Who are you?", "That's not what I asked.", "ok", "Can you help me?", "Please continue.", "What time is it?",
    "How's the weather?", "Tell me something interesting.", "I love {topic}.", "My name is {name}.", "Do you like {topic}?",
    "I just watched a film with {name}.", "Good night and thank you", "Never mind", "Let's talk about {topic}.",
    "Yesterday I read about {name} and {name2}.", "Are you sure?", "Can you repeat that?", "Why?", "What did you say?",
    "I have two cats and a dog.", "My favourite is {name}", "See you tomorrow", "What should I cook tonight?",
)  # fmt: skip
_CODE = (
    "def {f}(x):\n    return x + {n}", "How do I sort a list in Python?", "for i in range({n}): print(i)",
    "SELECT * FROM {f} WHERE id = {n};", "Why do I get a KeyError in this code? d = {{}}; d['{f}']", "Write a function that reverses a string.",
    "Write a {code} program that counts words.", "What does `git rebase` do?", "import numpy as np\nx = np.zeros({n})",
    "Explain this regex: ^[a-z]+{n}$", "Convert this JSON to YAML: {{\"{f}\": {n}}}", "How do I center a div in CSS?",
    "Implement binary search in {code}.", "What is the time complexity of quicksort?", "curl -X POST http://localhost:{n}/{f}",
    "class {f}: pass", "What's wrong with my {code} code?", "docker run -p {n}:80 {f}",
)  # fmt: skip
_SUMS = (
    "What is {n} plus {m}?", "{n} * {m} =", "What is {n} divided by {m}?", "Solve for x: {n}x + {m} = 0",
    "What is the square root of {n}?", "If I have {n} apples and eat {m}, how many are left?", "Convert {n} miles to kilometres.",
    "What is {n}% of {m}?", "Is {n} a prime number?", "How many days are there in {n} weeks?", "Round {n}.{m} to one decimal.",
    "A train travels {n} km in {m} hours. How fast is it?", "Calculate the area of a circle of radius {n}.",
)  # fmt: skip
_FOREIGN = (
    "¿Cómo estás hoy?", "Schreib mir bitte ein Gedicht über {topic}.", "Qu'est-ce que tu penses de {name} ?", "Wie geht es dir?",
    "Raconte-moi une blague.", "今日はどうですか", "Что ты умеешь?", "Cuéntame algo sobre {topic}", "Puoi aiutarmi?", "请写一首诗",
)  # fmt: skip
_WORDS = {
    "form": ("poem", "haiku", "short story", "letter", "birthday card", "blog post", "speech", "tweet", "limerick", "list",
             "rap", "toast", "cover letter", "product description", "essay", "recipe"),
    "topic": ("the sea", "friendship", "autumn", "time management", "chess openings", "gardening", "machine learning", "love",
              "healthy breakfasts", "black holes", "photosynthesis", "a startup", "the stock market", "yoga", "job interviews",
              "climate change", "cats", "public speaking", "the French Revolution", "learning the guitar", "baking bread"),
    "language": ("French", "German", "Spanish", "Japanese", "Latin", "Italian", "Arabic", "Portuguese"),
    "thing": ("wife", "capital", "childhood", "career", "author", "employer", "religion", "home country", "founder", "sport"),
    "word": ("orange", "house", "apple", "beautiful", "run", "mouse", "time", "strength", "child", "quickly"),
    "sentence": ("I has went to the store.", "The quick brown fox jumps over the lazy dog.", "We need the report by Friday.",
                 "It was a dark and stormy night.", "This film was a waste of time.", "The meeting is moved to Monday at ten.",
                 "She bought three books and a lamp.", "Our flight was delayed for two hours."),
    "code": ("Python", "Java", "C++", "Rust", "JavaScript", "Go"),
    "f": ("users", "foo", "parse", "items", "load_data", "main", "orders"),
}  # fmt: skip


def not_a_chain(rng: random.Random, name: str) -> str:
    """A text that asks for no chain of facts; `name` is an entity that it may mention."""
    kind = rng.choices((_TASKS, _CHAT, _CODE, _SUMS, _FOREIGN), (6, 3, 2, 2, 1))[0]
    values = {key: rng.choice(options) for key, options in _WORDS.items()}
    return rng.choice(kind).format(
        name=name, name2=rng.choice(_OTHERS), n=rng.randint(2, 99), m=rng.randint(2, 99), **values
    )


_OTHERS = (
    "Napoleon",
    "the Beatles",
    "Japan",
    "Apple",
    "chess",
    "Marie Curie",
    "Hamlet",
    "Brazil",
    "Google",
    "my brother",
)
