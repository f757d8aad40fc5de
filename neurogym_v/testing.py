"""The conformance kit: what every agent must keep, checked with one call in your own tests.

    from neurogym_v.testing import check_agent
    check_agent(lambda spec, batch_size, seed: MyAgent(spec, batch_size=batch_size, seed=seed))

It needs no test framework and no neuron, and takes well under a second for an evolutionary agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from neurogym_v.agent import Agent
from neurogym_v.generators import Generator
from neurogym_v.types import Feedback, Latents, LoopSpec, Rates

AgentFactory = Callable[[LoopSpec, int, int], Agent]
"""factory(spec, batch_size, seed): a fresh agent."""
Neuron = Callable[[Latents, np.random.Generator], Rates]
"""(n, d) latents as shown -> (n,) spikes/s, with NaN for a lost trial."""


class ConformanceError(AssertionError):
    """An agent or a generator does not keep its contract; the message names what."""


def check_agent(
    factory: AgentFactory,
    *,
    latent_dim: int = 24,
    batch_size: int = 12,
    rounds: int = 12,
    bound: float = 2.5,
    generator: Generator | None = None,
) -> None:
    """Check an agent against the contract of `Agent`, on a toy neuron.

    Order of ask and tell; shapes, dtype and finite values; the same seed gives the same latents, and another seed
    others; a recorded session replays to equal latents; nothing given is changed and nothing kept is shared; lost
    trials (half, all, all but one), equal rates, huge rates, a short last round, clipped latents, the smallest batch;
    `recommend` and `diagnostics` at any time, leaving no trace.

    Args:
        factory: called as factory(spec, batch_size, seed), often.
        latent_dim, batch_size, rounds, bound: size of the sessions to check with; the batch should be at least 2.
        generator: for an agent that uses its gradient; then latents are this one's.

    Raises:
        ConformanceError: with the first property that does not hold.
    """
    if generator is not None:
        latent_dim, bound = generator.latent_dim, generator.bound
    spec = LoopSpec(latent_dim=latent_dim, bound=bound, budget=batch_size * rounds, generator=generator)

    def fresh(seed: int = 0) -> Agent:
        return factory(spec, batch_size, seed)

    _check_order(fresh())
    for name, neuron in NEURONS.items():
        _check_session(fresh(), neuron, rounds, name)
    _check_short_round(fresh())
    smallest = fresh().smallest_batch
    _check_session(factory(spec, smallest, 0), _toy, rounds, f"the smallest batch, {smallest}")
    _check_repeatable(fresh, rounds)
    _check_nothing_shared(fresh)
    _check_replay(fresh, rounds)


def _toy(latents: Latents, rng: np.random.Generator) -> Rates:
    """A Poisson neuron that likes large values in every second place."""
    expected = np.exp(np.clip(latents[:, ::2].mean(axis=1) + 1.0, -3, 5))
    return np.asarray(rng.poisson(expected), dtype=np.float64)


def _half_lost(latents: Latents, rng: np.random.Generator) -> Rates:
    return np.where(rng.random(len(latents)) < 0.5, np.nan, _toy(latents, rng))


def _all_but_one_lost(latents: Latents, rng: np.random.Generator) -> Rates:
    return np.where(np.arange(len(latents)) == rng.integers(len(latents)), _toy(latents, rng), np.nan)


def _often_all_lost(latents: Latents, rng: np.random.Generator) -> Rates:
    return np.full(len(latents), np.nan) if rng.random() < 0.5 else _toy(latents, rng)


NEURONS: dict[str, Neuron] = {
    "a Poisson neuron": _toy,
    "half of the trials lost": _half_lost,
    "all trials but one lost": _all_but_one_lost,
    "whole rounds lost": _often_all_lost,
    "every trial lost": lambda latents, _: np.full(len(latents), np.nan),
    "a silent neuron (all rates 0)": lambda latents, _: np.zeros(len(latents)),
    "equal rates": lambda latents, _: np.full(len(latents), 7.0),
    "rates of 1e12": lambda latents, rng: 1e12 * _toy(latents, rng),
    "negative rates (a baseline was subtracted)": lambda latents, rng: _toy(latents, rng) - 50.0,
}


def _session(agent: Agent, neuron: Neuron, rounds: int) -> Iterator[Feedback]:
    """Asks and tells `rounds` times; the latents are clipped as an environment does."""
    rng = np.random.default_rng(1)
    spent, bound = 0, agent.spec.bound
    for round_ in range(rounds):
        latents = np.clip(agent.ask(), -bound, bound)
        spent += len(latents)
        feedback = Feedback(
            round=round_, latents=latents, rates=neuron(latents, rng), spent=spent, left=agent.spec.budget - spent
        )
        yield feedback
        agent.tell(feedback)


def _expect(holds: bool, property_: str) -> None:
    if not holds:
        raise ConformanceError(property_)


def _valid(latents: object, n: int | None, d: int) -> bool:
    return (
        isinstance(latents, np.ndarray)
        and latents.dtype == np.float32
        and latents.ndim == 2
        and latents.shape[1] == d
        and (len(latents) == n if n is not None else len(latents) > 0)
        and bool(np.isfinite(latents).all())
    )


def _check_order(agent: Agent) -> None:
    try:
        latents = agent.ask()
    except Exception as error:
        raise ConformanceError(f"the first ask() raised {error!r}") from error
    _expect(
        _valid(latents, None, agent.spec.latent_dim),
        f"ask() gives (n, {agent.spec.latent_dim}) float32 latents, all finite",
    )
    feedback = Feedback(round=0, latents=latents, rates=np.ones(len(latents)), spent=len(latents), left=0)
    _expect(_raises(agent.ask), "ask() twice without a tell() between raises RuntimeError")
    agent.tell(feedback)
    _expect(_raises(lambda: agent.tell(feedback)), "tell() without an ask() before raises RuntimeError")


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except RuntimeError:
        return True
    return False


def _check_repeatable(fresh: Callable[[int], Agent], rounds: int) -> None:
    first, second, other = ([f.latents for f in _session(fresh(seed), _toy, rounds)] for seed in (3, 3, 4))
    _expect(_equal(first, second), "the same seed and the same rates give the same latents, to the byte")
    _expect(not _equal(first, other), "another seed gives other latents")


def _check_replay(fresh: Callable[[int], Agent], rounds: int) -> None:
    """A session that was looked at (recommend, diagnostics) is replayed by one that was not."""
    agent, recorded = fresh(5), []
    for feedback in _session(agent, _half_lost, rounds):
        recorded.append(feedback)
        first, second = agent.recommend(3), agent.recommend(3)
        _expect(np.array_equal(first, second), "recommend() twice gives the same latents")
        agent.diagnostics()
    replayed, bound = fresh(5), agent.spec.bound
    for feedback in recorded:
        asked = np.clip(replayed.ask(), -bound, bound)
        _expect(
            np.array_equal(asked, feedback.latents),
            f"a replayed session asks the recorded latents (round {feedback.round} differs): "
            "recommend() and diagnostics() must not touch self.rng or any state",
        )
        replayed.tell(feedback)
    _expect(np.array_equal(agent.recommend(2), replayed.recommend(2)), "a replayed session recommends the same latents")


def _check_nothing_shared(fresh: Callable[[int], Agent]) -> None:
    """Two equal agents; all that passes into and out of one of them is overwritten afterwards."""
    agent, twin = fresh(6), fresh(6)
    rng = np.random.default_rng(2)
    for round_ in range(4):
        asked, wanted = agent.ask(), twin.ask()
        _expect(np.array_equal(asked, wanted), "arrays from ask() and recommend() are the caller's to change")
        rates = np.full(len(wanted), np.nan) if round_ == 1 else _half_lost(wanted, rng)
        before = wanted.copy(), rates.copy()
        spent = (round_ + 1) * len(wanted)
        feedback = Feedback(round=round_, latents=wanted, rates=rates, spent=spent, left=0)
        twin.tell(feedback)
        unchanged = np.array_equal(wanted, before[0]) and np.array_equal(rates, before[1], equal_nan=True)
        _expect(unchanged, "tell() changes neither the latents nor the rates it is given")
        given = Feedback(round=round_, latents=before[0], rates=before[1], spent=spent, left=0)
        asked.fill(1e6)
        agent.tell(given)
        before[0].fill(1e6)
        before[1].fill(1e6)
        agent.recommend(1).fill(1e6)
        twin.recommend(1)
    _expect(np.array_equal(agent.recommend(1), twin.recommend(1)), "tell() keeps copies: its arrays are the caller's")


def _check_session(agent: Agent, neuron: Neuron, rounds: int, name: str) -> None:
    d = agent.spec.latent_dim
    try:
        _check_recommendation(agent, f"before the first round ({name})")
        for feedback in _session(agent, neuron, rounds):
            _expect(_valid(feedback.latents, None, d), f"with {name}, ask() stays (n, {d}) float32 and finite")
            _check_recommendation(agent, f"in round {feedback.round} with {name}")
        _check_recommendation(agent, f"at the end, with {name}")
        numbers = agent.diagnostics()
        _expect(
            all(isinstance(key, str) and isinstance(value, float | int) for key, value in numbers.items()),
            f"with {name}, diagnostics() maps names to numbers, got {numbers!r}",
        )
    except ConformanceError:
        raise
    except Exception as error:
        raise ConformanceError(f"with {name}, the agent raised {error!r}") from error


def _check_recommendation(agent: Agent, when: str) -> None:
    for k in (1, 3, 2 * agent.batch_size):
        best = agent.recommend(k)
        _expect(
            _valid(best, k, agent.spec.latent_dim),
            f"recommend({k}) gives ({k}, {agent.spec.latent_dim}) float32 latents, all finite, {when}",
        )


def _check_short_round(agent: Agent) -> None:
    """The budget ends within a round: the first few latents were shown, no others."""
    for n in (None, 3, 1):
        latents = agent.ask()[:n]
        rates = np.arange(len(latents), dtype=np.float64)
        try:
            agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=len(latents), left=0))
        except Exception as error:
            raise ConformanceError(f"a round of which only {len(latents)} were shown raised {error!r}") from error
        _check_recommendation(agent, "after a short last round")


def _equal(first: list[Latents], second: list[Latents]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
