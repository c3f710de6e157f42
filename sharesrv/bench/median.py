"""Several turns of one run told as one: the median of each number."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sharesrv.bench.measure import Spread
from sharesrv.bench.result import Part, Result, median_of


def medians(results: Sequence[Result]) -> list[Result]:
    """One for each name, in the order in which they first came."""
    turns: dict[str, list[Result]] = {}
    for result in results:
        turns.setdefault(result.name, []).append(result)
    return [_median(of_a_name) for of_a_name in turns.values()]


def _median(turns: Sequence[Result]) -> Result:
    first = turns[0]
    return msgspec.structs.replace(
        first,
        seconds=_of([turn.seconds for turn in turns]),
        parts=[_part([turn.parts[at] for turn in turns if at < len(turn.parts)]) for at in range(len(first.parts))],
        server_cpu_us=median_of([turn.server_cpu_us for turn in turns]),
        server_busy=median_of([turn.server_busy for turn in turns]),
        generator_busy=_of([turn.generator_busy for turn in turns]),
        others_busy=median_of([turn.others_busy for turn in turns]),
        generator_is_limit=_of([turn.generator_is_limit for turn in turns]) >= 0.5,
        memory=next((turn.memory for turn in turns[len(turns) // 2 :] if turn.memory), None),
        notes=list(dict.fromkeys(note for turn in turns for note in turn.notes)),
        wrongs=[wrong for turn in turns for wrong in turn.wrongs],
    )


def _part(turns: Sequence[Part]) -> Part:
    kinds = turns[0].spreads
    return Part(
        name=turns[0].name,
        count=round(_of([turn.count for turn in turns])),
        rate=_of([turn.rate for turn in turns]),
        spreads={kind: _spread([turn.spreads[kind] for turn in turns if kind in turn.spreads]) for kind in kinds},
    )


def _spread(turns: Sequence[Spread]) -> Spread:
    return Spread(*(_of([getattr(turn, name) for turn in turns]) for name in Spread.__struct_fields__))


def _of(values: Sequence[float]) -> float:
    return median_of(values) or 0.0
