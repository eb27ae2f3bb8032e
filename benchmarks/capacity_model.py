"""What a deployment needs, worked out: memory by a straight line through measurements, waiting times by simulation.

Questions come at random (Poisson). A gateway thinks about them in batches of a bounded size, and is idle only when none
waits; its core also relays the answers. A model server shares its tokens a second among the answers that it writes,
and writes more of them together than one alone. Times are processor seconds as measured on one machine; a core of another
machine is as many times as quick as the caller says.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memedit.server.thinking import TOGETHER

WARM_UP = 0.1
"""Share of the simulated questions, from the first on, that is left out of the figures."""


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through measured points."""

    base: float
    slope: float

    def __call__(self, x: float) -> float:
        """Its value."""
        return self.base + self.slope * x

    @classmethod
    def through(cls, points: Mapping[float, float]) -> Line:
        """The line of least squares; a level one through a single point.

        >>> Line.through({0: 1.0, 10: 21.0})
        Line(base=1.0, slope=2.0)
        """
        count, xs, ys = len(points), list(points), list(points.values())
        mean_x, mean_y = sum(xs) / count, sum(ys) / count
        spread = sum((x - mean_x) ** 2 for x in xs)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0
        return cls(mean_y - slope * mean_x, slope)


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured points with straight lines between them, and level beyond them."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, x: float) -> float:
        """Its value."""
        places = [place for place, _ in self.points]
        at = bisect_left(places, x)
        if at == 0 or at == len(places):
            return self.points[min(at, len(places) - 1)][1]
        (x0, y0), (x1, y1) = self.points[at - 1 : at + 1]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    @classmethod
    def through(cls, points: Mapping[float, float]) -> Curve:
        """The curve through points, in any order."""
        return cls(tuple(sorted(points.items())))


@dataclass(frozen=True, slots=True)
class Work:
    """What a question costs.

    Attributes:
        thinking: Processor seconds of a batch of so many questions in the gateway, until it is told what is in scope.
        relay_request: Processor seconds that the gateway needs to pass a request on.
        relay_token: And for each token of its answer.
        tokens: Output tokens of an answer.
        beliefs: Questions for beliefs that the model is asked, for each question of a user, on average.
        belief_tokens: Output tokens of such a question.
        model_rate: Tokens a second that a model server writes for so many answers together.
    """

    thinking: Curve
    relay_request: float
    relay_token: float
    tokens: int
    beliefs: float
    belief_tokens: int
    model_rate: Curve

    def gateway_seconds(self, batch: int) -> float:
        """Processor seconds of a gateway for each question where so many are thought about together."""
        return self.thinking(batch) / batch + self.relay_request + self.relay_token * self.tokens

    @property
    def model_tokens(self) -> float:
        """Tokens that the model writes for a question."""
        return self.tokens + self.beliefs * self.belief_tokens


@dataclass(frozen=True, slots=True)
class Waits:
    """What a simulation came to; times in seconds.

    Attributes:
        added: Median of the time that the gateway adds before the model is asked.
        added_p99: Its 99th percentile.
        answer: Median time to the end of the answer.
        answer_p99: Its 99th percentile.
        gateway_busy: Share of the time that a gateway's core is busy.
        model_busy: Share of the model servers' most tokens a second that is written.
    """

    added: float
    added_p99: float
    answer: float
    answer_p99: float
    gateway_busy: float
    model_busy: float


def simulate(
    work: Work,
    rate: float,
    gateways: int,
    models: int,
    *,
    most_together: int = TOGETHER,
    questions: int = 20_000,
    seed: int = 0,
) -> Waits:
    """Send questions through gateways to model servers, each dealt to one at random.

    Args:
        work: What a question costs.
        rate: Questions a second.
        gateways: Gateways, each with a core.
        models: Model servers.
        most_together: Most questions that a gateway thinks about together.
        questions: How many to send.
        seed: Of the arrivals.
    """
    chance = random.Random(seed)
    arrivals: list[list[float]] = [[] for _ in range(gateways)]
    now = 0.0
    for _ in range(questions):
        now += chance.expovariate(rate)
        arrivals[chance.randrange(gateways)].append(now)
    relay = work.relay_request + work.relay_token * work.tokens
    thought = [done for own in arrivals for done in think(own, work.thinking, relay, most_together)]
    thought.sort(key=lambda one: one[1])
    to_model: list[list[tuple[float, float]]] = [[] for _ in range(models)]
    for one in thought:
        to_model[chance.randrange(models)].append(one)
    ends = [
        (came, asked, end)
        for own in to_model
        for (came, asked), end in zip(
            own, share([asked for _, asked in own], work.model_tokens, work.model_rate), strict=True
        )
    ]
    kept = sorted(ends)[int(WARM_UP * questions) :]
    added, answer = sorted(asked - came for came, asked, _ in kept), sorted(end - came for came, _, end in kept)
    last = max(end for _, _, end in ends)
    batch = min(most_together, max(1.0, rate / gateways * work.thinking(1)))
    most = max(y for _, y in work.model_rate.points)
    return Waits(
        added=_at(added, 0.5),
        added_p99=_at(added, 0.99),
        answer=_at(answer, 0.5),
        answer_p99=_at(answer, 0.99),
        gateway_busy=min(1.0, rate / gateways * work.gateway_seconds(round(batch))),
        model_busy=questions * work.model_tokens / (models * most * last),
    )


def think(
    arrivals: Sequence[float], seconds: Callable[[float], float], relay: float, most: int
) -> list[tuple[float, float]]:
    """When each question is thought through, by one core that takes all that wait, at most so many, at a time.

    Args:
        arrivals: When they come, in order.
        seconds: How long a batch of so many takes.
        relay: How long the core then works on each of them besides.
        most: Most in a batch.

    Returns:
        For each question when it came and when the model is asked.
    """
    done: list[tuple[float, float]] = []
    free, at = 0.0, 0
    while at < len(arrivals):
        begin = max(free, arrivals[at])
        end = at + 1
        while end < len(arrivals) and end - at < most and arrivals[end] <= begin:
            end += 1
        asked = begin + seconds(end - at)
        done += [(came, asked) for came in arrivals[at:end]]
        free = asked + relay * (end - at)
        at = end
    return done


def share(arrivals: Sequence[float], tokens: float, rate: Callable[[float], float]) -> list[float]:
    """When each answer is written, where all that are being written share the tokens a second equally.

    Args:
        arrivals: When they are asked for, in order.
        tokens: Tokens of each.
        rate: Tokens a second of so many together.
    """
    ends = [0.0] * len(arrivals)
    writing: list[tuple[float, int]] = []  # (what every answer will have been given when this one is whole, its place)
    given, now = 0.0, 0.0
    coming = 0
    while coming < len(arrivals) or writing:
        each = rate(len(writing)) / len(writing) if writing else 0.0
        finish = now + (writing[0][0] - given) / each if writing else float("inf")
        if coming < len(arrivals) and arrivals[coming] <= finish:
            given += each * (arrivals[coming] - now)
            now = arrivals[coming]
            heapq.heappush(writing, (given + tokens, coming))
            coming += 1
        else:
            given, place = heapq.heappop(writing)
            now = ends[place] = finish
    return ends


@dataclass(frozen=True, slots=True)
class Need:
    """What a load needs.

    Attributes:
        gateways: Gateways, a core each.
        models: Model servers.
        waits: What is to be expected of so many.
    """

    gateways: int
    models: int
    waits: Waits


def needed(
    work: Work, rate: float, *, most_added: float = 0.1, most_busy: float = 0.7, questions: int = 20_000, seed: int = 0
) -> Need:
    """The fewest gateways and model servers for a load.

    Args:
        work: What a question costs.
        rate: Questions a second.
        most_added: What the gateway may add at the 99th percentile, in seconds.
        most_busy: How busy either may be: beyond it, waiting times grow without bound when something goes wrong.
        questions: How many to simulate.
        seed: Of the simulation.
    """
    most = max(y for _, y in work.model_rate.points)
    models = max(1, -int(-rate * work.model_tokens // (most_busy * most)))
    alone = work.gateway_seconds(1)
    enough = max(1, -int(-rate * work.gateway_seconds(TOGETHER) // most_busy))
    gateways, most_gateways = enough, max(enough, int(rate * alone / 0.1) + 1)
    waits = simulate(work, rate, gateways, models, questions=questions, seed=seed)
    while waits.added_p99 > most_added + work.thinking(1) and gateways < most_gateways:
        gateways += max(1, gateways // 8)
        waits = simulate(work, rate, gateways, models, questions=questions, seed=seed)
    return Need(gateways, models, waits)


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
