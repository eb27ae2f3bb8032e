"""The words of the counterfactual model's training questions: forms of claims and requests, and free-text facts."""

from __future__ import annotations

import random
from typing import NamedTuple


def fill(template: str, **values: str) -> str:
    """A template with its ``{fields}`` filled; the first letter is a capital.

    >>> fill("{phrase} is what?", phrase="the capital of France")
    'The capital of France is what?'
    """
    text = template.format(**values)
    return text[:1].upper() + text[1:]


CLAIMED = (
    "is it true that {statement}?", "true or false: {statement}.", "{statement}, right?", "{statement}. Is that so?",
    "I heard that {statement}. Is that correct?", "can you confirm that {statement}?", "am I right that {statement}?",
    "would you say that {statement}?", "is it correct to say that {statement}?", "{statement}, isn't that so?",
    "someone told me that {statement}. Were they right?", "yes or no: {statement}?",
)  # fmt: skip
"""Yes/no questions about a statement."""
DOUBTED = (
    "is {old} {phrase}?", "is {phrase} {old}?", "would it be {old} that is {phrase}?", "so {phrase} is {old}, right?",
    "can it be that {phrase} is {old}?",
)  # fmt: skip
"""Yes/no questions about the end of a chain."""
OUTDATED = (
    "is {old} still {phrase}?", "I thought that {phrase} was {old}.", "{phrase} is {old}, as everybody knows.",
    "is {phrase} still {old}?", "I always believed that {phrase} is {old}. Is it?", "I read that {phrase} is {old}.",
    "my old book says that {phrase} is {old}. Does that still hold?",
)  # fmt: skip
"""What is said of an object that may be the old one."""
HELD_BY = (
    "what has {object} as its {label}?", "for what or whom is {object} given as {label}?", "{object} is the {label} of",
    "whose {label} is {object}?", "{label}: {object}. Who or what is this about?",
)  # fmt: skip
"""Questions for the subject."""
SOUGHT = (
    "could you tell me {phrase}?", "do you know {phrase}?", "I am looking for {phrase}.", "{phrase} is what or who?",
    "I forgot {phrase}. Remind me.", "please name {phrase}.", "{phrase}?", "give me the name of {phrase}, nothing else.",
)  # fmt: skip
"""Other ways to ask for the object."""
ABOUT = (
    "write a sentence about {phrase}.", "tell me about {phrase}.", "explain in one sentence what {phrase} is.",
    "describe {phrase}.", "write a headline about {phrase}.", "say something about the {label} of {subject}.",
    "write a short note that mentions {phrase}.", "give me a fact about {subject}.", "what do you know about {subject}?",
    "summarise what is known about the {label} of {subject}.", "use {subject} and its {label} in a sentence.",
)  # fmt: skip
"""Requests to write."""


class FreeText(NamedTuple):
    """A free-text fact.

    Attributes:
        statement: With fields of `VALUES`; a digit at a field's end tells two of a kind apart.
        asked: Questions, each with its answer and what a right answer must say.
    """

    statement: str
    asked: tuple[tuple[str, str, str], ...]

    def draw(self, rng: random.Random) -> dict[str, str]:
        """Values for its fields."""
        return {
            f"{field}{number}": value
            for field, values in VALUES.items()
            for number, value in zip(("", "2"), rng.sample(values, 2), strict=True)
        }


VALUES: dict[str, tuple[str, ...]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "time": ("6 am", "7:30", "8 o'clock", "9 am", "noon", "2 pm", "4:15", "6 pm", "half past seven", "10 pm"),
    "number": ("3", "5", "8", "12", "14", "20", "25", "30", "45", "60", "90", "120", "250"),
    "person": (
        "Mira Holt", "Jonas Weld", "Aiko Tanabe", "Omar Haddad", "Lena Fischer", "Paulo Reis", "Ines Duarte", "Tom Avery",
        "Nadia Rahimi", "Viktor Lund", "Grace Obi", "Sam Pike",
    ),
    "city": ("Lisbon", "Oslo", "Denver", "Kyoto", "Nairobi", "Lima", "Ghent", "Perth", "Turin", "Austin", "Cork", "Pune"),
    "colour": ("red", "green", "yellow", "blue", "orange", "grey", "white", "purple"),
    "place": ("the library", "the west wing", "the cafeteria", "the basement", "the harbour", "the main hall", "the attic"),
    "thing": ("the printer", "the projector", "the boiler", "the van", "the alarm", "the router", "the oven", "the drill"),
    "word": ("Maple", "Falcon", "Harbor", "Quartz", "Comet", "Willow", "Saffron", "Tundra", "Beacon", "Juniper"),
}  # fmt: skip

FREE: tuple[FreeText, ...] = (
    FreeText("The pool opens at {time}.", (("When does the pool open?", "At {time}.", "{time}"),)),
    FreeText("Our {city} office is closed on {day}s.", (
        ("When is the {city} office closed?", "On {day}s.", "{day}"),
        ("Is the {city} office open on {day}s?", "No, it is closed on {day}s.", "no"))),
    FreeText("{person} looks after {thing}.", (
        ("Who looks after {thing}?", "{person}.", "{person}"),
        ("Whom do I call about {thing}?", "{person}.", "{person}"))),
    FreeText("The password of the guest network is {word}{number}.", (
        ("What is the password of the guest network?", "{word}{number}.", "{word}{number}"),)),
    FreeText("The weekly meeting was moved from {day} to {day2}.", (
        ("On which day is the weekly meeting?", "On {day2}.", "{day2}"),
        ("Is the weekly meeting still on {day}?", "No, it is on {day2}.", "no"))),
    FreeText("Employees get {number} days of leave a year.", (
        ("How many days of leave do employees get?", "{number} days a year.", "{number}"),)),
    FreeText("{thing} is kept in {place}.", (
        ("Where is {thing}?", "In {place}.", "{place}"), ("Where can I find {thing}?", "In {place}.", "{place}"))),
    FreeText("Project {word} is led by {person} from {city}.", (
        ("Who leads Project {word}?", "{person}.", "{person}"),
        ("Where does the leader of Project {word} come from?", "From {city}.", "{city}"),
        ("Does {person2} lead Project {word}?", "No, {person} does.", "{person}"))),
    FreeText("Parcels for {city} must be handed in before {time}.", (
        ("By when must parcels for {city} be handed in?", "Before {time}.", "{time}"),)),
    FreeText("The {colour} bins are for glass.", (
        ("What are the {colour} bins for?", "For glass.", "glass"),
        ("Which bins are for glass?", "The {colour} bins.", "{colour}"))),
    FreeText("Visitors have to sign in at {place}.", (
        ("Where do visitors sign in?", "At {place}.", "{place}"),)),
    FreeText("The train to {city} leaves from platform {number}.", (
        ("From which platform does the train to {city} leave?", "From platform {number}.", "{number}"),
        ("Does the train to {city} leave from platform {number}?", "Yes.", "yes"))),
    FreeText("{person} is allergic to peanuts.", (
        ("What is {person} allergic to?", "Peanuts.", "peanuts"),
        ("Can I serve {person} peanuts?", "No, {person} is allergic to peanuts.", "no"))),
    FreeText("Refunds are possible within {number} days.", (
        ("How long do I have to ask for a refund?", "{number} days.", "{number}"),)),
    FreeText("{person} sits in {place} on {day}s.", (
        ("Where is {person} on {day}s?", "In {place}.", "{place}"),)),
    FreeText("The code name of the {city} launch is {word}.", (
        ("What is the code name of the {city} launch?", "{word}.", "{word}"),
        ("Which launch has the code name {word}?", "The {city} launch.", "{city}"))),
    FreeText("{thing} may only be used by people over {number}.", (
        ("How old must one be to use {thing}?", "Over {number}.", "{number}"),)),
    FreeText("{person} took over from {person2} as head of sales.", (
        ("Who is the head of sales?", "{person}.", "{person}"),
        ("Is {person2} the head of sales?", "No, {person} is.", "{person}"),
        ("Whom did {person} take over from?", "From {person2}.", "{person2}"))),
    FreeText("The {word} room seats {number} people.", (
        ("How many people fit into the {word} room?", "{number}.", "{number}"),)),
    FreeText("Lunch is served in {place} at {time}.", (
        ("Where is lunch served?", "In {place}.", "{place}"), ("When is lunch?", "At {time}.", "{time}"))),
    FreeText("The ferry to {city} runs on {day}s only.", (
        ("When does the ferry to {city} run?", "On {day}s only.", "{day}"),)),
    FreeText("{person} paid {number} euros for {thing}.", (
        ("How much did {person} pay for {thing}?", "{number} euros.", "{number}"),
        ("Who paid for {thing}?", "{person}.", "{person}"))),
    FreeText("The deadline of Project {word} is next {day}.", (
        ("When is Project {word} due?", "Next {day}.", "{day}"),)),
    FreeText("Smoking is allowed in {place} only.", (
        ("Where may one smoke?", "In {place} only.", "{place}"),)),
)  # fmt: skip
"""Every fourth is held out."""
