"""A table of the shape of IEEE-CIS, for all who have no copy of it: its columns, gaps, drift, clients and fraud, and none of its rows.

Clients come first: cards with habits, born and gone over half a year, a few of them compromised. Three hidden traits say how a row looks:
its account, its velocity and the event itself. Every column is a noisy view of them, cut at the shares that ieee_cis.json holds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

DAYS = 182  # TransactionDT counts seconds; its first day is day 1
FIRST, LAST = 86_400, 15_811_131  # seconds
PRODUCTS = ("W", "C", "R", "H", "S")
W, C, R, H, S = range(5)
# Periods start on these days; a share of all rows falls in each, and in each a share of its rows is C, R, H or S.
STARTS = (1, 13, 27, 31, 61, 91, 121, 151, 183)
PERIODS = (0.10, 0.10, 0.03, 0.154, 0.154, 0.154, 0.154, 0.154)
SECOND_MONTH, LAST_MONTH = 31, 151
MIX = {
    C: (0.116,) * 8,
    R: (0.12, 0.23, 0.105, 0.0336, 0.032, 0.032, 0.0336, 0.037),
    H: (0.114, 0.22, 0.105, 0.0252, 0.024, 0.024, 0.0252, 0.028),
    S: (0.020,) * 8,
}
# Rows per hour of the day, and fraud there as a ratio to the mean.
HOURS = (6.4, 5.7, 4.5, 3.2, 2.1, 1.1, 0.5, 0.25, 0.1, 0.15, 0.25, 0.6, 1.3, 2.6, 4.3, 5.6, 6.8, 7.4, 7.7, 7.7, 7.6, 7.3, 7.1, 6.8)
HOURS_FRAUD = (1, 0.95, 1, 1.05, 1.3, 1.7, 2.2, 2.8, 3.0, 2.7, 1.9, 1.3, 0.75, 0.6, 0.55, 0.65, 0.85, 1, 1.05, 1.05, 1.05, 1.1, 1.1, 1.1)
# By product: share of clients who come back, of compromised clients the share that looks it, and where their traits then lie.
LASTING = np.array([0.53, 0.6, 0.22, 0.22, 0.27])
BLATANT = np.array([0.14, 0.58, 0.97, 0.68, 0.78])
BLATANT_TRAITS = (2.3, 2.6, 1.7)  # account, velocity, event, in standard deviations
SUBTLE_TRAITS = (0.71, 1.03, 0.79)
FADES = 1.15  # so much more plainly fraud shows on the first day than on the last: who defrauds learns what is looked for
PLAIN = 0.2  # a table ten times smaller than 200,000 rows shows fraud so much more plainly: it has less of it to learn from
HOME = 0.75  # of people live where most with their card do
PERSISTENCE = 0.88  # of a compromised client's rows after the first fraud are fraud
FEW, FEW_UNPLACED = 4, 16  # rows of a client, with an address and without one: up to here more of them invite fraud, then they lower it
LATE = 0.4  # of compromised clients with several rows were legit at first
UNPUBLISHED: dict[str, dict[str, Any]] = {
    "id_23": {"values": [["IP_PROXY:TRANSPARENT", 3500], ["IP_PROXY:ANONYMOUS", 1070], ["IP_PROXY:HIDDEN", 600]], "others": [0, 0]},
    "id_27": {"values": [["Found", 5155], ["NotFound", 14]], "others": [0, 0]},
}
LOADING = 0.5  # of a V column on how its row looks, per standard deviation between fraud and legit
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.int8]


@cache
def numbers() -> dict[str, Any]:
    """Give what tests/fit_ieee_cis.py has fitted."""
    found: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class Deck:
    """All cards: number, rows in the whole table, log of the fraud rate (standardised), and card2 to card6."""

    card1: Ints
    count: Ints
    rate: Doubles
    kinds: dict[str, Ints]


@dataclass(frozen=True)
class Owners:
    """All clients: card (place in the deck), address (place in the list, or -1), first day, and how much they invite fraud."""

    count: int
    deck: Deck
    card: Ints
    address: Ints
    born: Ints
    risk: Floats


@dataclass
class Rows:
    """The rows in order of time, before they have columns."""

    rng: np.random.Generator
    product: Bytes
    client: Ints
    owners: Owners
    born: Ints  # day on which the client was first seen, at or before its first row
    day: Ints
    visit: Ints  # of one client on one day
    visits: int
    seconds: Ints
    fraud: Bools
    account: Floats
    velocity: Floats
    event: Floats
    known: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known["size"] = np.bincount(self.client, minlength=self.owners.count)
        self.known["kind"] = np.zeros(self.owners.count, dtype=np.int8)
        self.known["kind"][self.client] = self.product

    def __len__(self) -> int:
        return len(self.product)

    def noise(self) -> Floats:
        """Draw anew for every client's day and, for a third, for every row: what one does in a row looks alike."""
        drawn = np.float32(0.8) * self.rng.standard_normal(self.visits, dtype=np.float32)[self.visit]
        drawn += np.float32(0.6) * self.rng.standard_normal(len(self), dtype=np.float32)
        return drawn

    def habit(self) -> Floats:
        """Draw anew for every client, and give it to all its rows."""
        return self.rng.standard_normal(self.owners.count, dtype=np.float32)[self.client]

    def chance(self) -> Floats:
        """Draw a share of 1 for every client, and give it to all its rows; in every product as many rows lie in each tenth."""
        size, kind = self.known["size"], self.known["kind"]
        order = np.lexsort((self.rng.random(len(size), dtype=np.float32), kind))
        passed = np.cumsum(size[order])
        ends = np.cumsum(np.bincount(kind, weights=size, minlength=5))
        before = np.r_[0, ends[:-1]][kind[order]]
        share = np.empty(len(size), dtype=np.float32)
        share[order] = (passed - size[order] / 2 - before) / (ends[kind[order]] - before)
        return share[self.client]

    def view(self, account: float = 0, velocity: float = 0, event: float = 0, habit: float = 0.42) -> Floats:
        """See the traits through noise, of which a share is the client's habit; about 1 wide."""
        rest = max(0.05, 1 - account**2 - velocity**2 - event**2)
        seen = np.float32((rest * habit) ** 0.5) * self.habit() + np.float32((rest * (1 - habit)) ** 0.5) * self.noise()
        for weight, trait in ((account, self.account), (velocity, self.velocity), (event, self.event)):
            if weight:
                seen += np.float32(weight) * trait
        return seen


def tables(rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make train_transaction and train_identity, in Kaggle's order and with the types that pandas finds in Kaggle's files."""
    found = _rows(np.random.default_rng(seed), rows)
    columns: dict[str, Any] = {
        "TransactionID": np.arange(rows) + 2_987_000,
        "isFraud": found.fraud.astype(np.int64),
        "TransactionDT": found.seconds,
        "TransactionAmt": _amounts(found),
        "ProductCD": _texts(PRODUCTS, found.product),
    }
    found.known["chance identity"] = found.chance()
    shares = {number: numbers()["products"][name][2] for number, name in enumerate(PRODUCTS)}
    found.known["identity"] = _present(found, "id_01", found.known["chance identity"], shares)
    columns |= _cards(found) | _places(found) | _counts(found) | _days(found) | _matches(found) | _vesta(found)
    frame = pd.DataFrame(columns, copy=False)
    return frame, _identity(found)


def write(rows: int, seed: int, folder: Path) -> None:
    """Write both tables as Kaggle's files: the bytes that pandas' to_csv would write, several times as fast."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    for name, frame in zip(("transaction", "identity"), tables(rows, seed), strict=True):
        with (folder / f"train_{name}.csv").open("wb") as file:
            file.write(f"{','.join(frame.columns)}\n".encode())
            for start in range(0, len(frame), 50_000):
                part = frame.iloc[start : start + 50_000]
                pyarrow.csv.write_csv(pa.table({column: _spelled(values) for column, values in part.items()}), file, plain)


def _spelled(values: pd.Series) -> Any:
    """Spell numbers as Kaggle does: 1.0, and nothing for a missing value."""
    if values.dtype != np.float64:
        return pa.array(values, from_pandas=True)
    codes, numbers = pd.factorize(values)
    return pa.array([repr(number) for number in numbers.tolist()], type=pa.string()).take(pa.array(codes, mask=codes < 0))


# Who pays, and when


def _rows(rng: np.random.Generator, rows: int) -> Rows:
    """Draw clients and their visits by product, choose who is compromised, and put all in order of time."""
    shares = np.array([numbers()["products"][name][0] for name in PRODUCTS], dtype=np.float64)
    ends = np.round(np.cumsum(shares / shares.sum()) * rows).astype(np.int64)
    parts = [_visits(rng, product, count) for product, count in enumerate(np.diff(ends, prepend=0))]
    product = np.repeat(np.arange(5, dtype=np.int8), [len(part[0]) for part in parts])
    client = np.concatenate([part[0] + sum(len(p[2]) for p in parts[:number]) for number, part in enumerate(parts)])
    time, born = (np.concatenate([part[column] for part in parts]) for column in (1, 2))
    client, owners = _owners(rng, product, client, np.floor(born).astype(np.int64))

    order = np.lexsort((time, client))
    product, client, time = product[order], client[order], time[order]
    fraud, state = _compromised(rng, product, client, owners, time)
    seconds = _clock(rng, client, time, fraud)
    traits = _traits(rng, product, client, owners, time, fraud, state)
    order = np.argsort(seconds, kind="stable")
    seconds = seconds[order]
    product, client, fraud = product[order], client[order], fraud[order]
    account, velocity, event = (trait[order] for trait in traits)
    seconds[0], seconds[-1] = FIRST, LAST
    owners.born[client[0]] = min(owners.born[client[0]], 1)
    day = seconds // 86_400
    born = np.minimum(owners.born[client], day)
    names, visit = np.unique(client * 256 + day, return_inverse=True)
    return Rows(rng, product, client, owners, born, day, visit, len(names), seconds, fraud, account, velocity, event)


def _clock(rng: np.random.Generator, client: Ints, time: Doubles, fraud: Bools) -> Ints:
    """Give TransactionDT: the day of the visit, an hour by its custom, and minutes between the rows of one visit."""
    rows = len(client)
    hours, rate = np.array(HOURS), np.array(HOURS) * HOURS_FRAUD
    hour = np.where(fraud, rng.choice(24, rows, p=rate / rate.sum()), rng.choice(24, rows, p=hours / hours.sum()))
    same = np.r_[False, (client[1:] == client[:-1]) & (time[1:] == time[:-1])]
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(rows)))
    within = hour * 3600 + rng.integers(0, 3600, rows)
    passed = np.cumsum(np.where(same, rng.exponential(400, rows), 0).astype(np.int64))
    seconds = np.floor(time).astype(np.int64) * 86_400 + within[starts] + passed - passed[starts]
    seconds = np.minimum(seconds, LAST - rng.integers(0, 3600, rows))
    return np.asarray(seconds[np.lexsort((seconds, client))])  # a client's rows stay in order: fraud once is fraud from then on


def _visits(rng: np.random.Generator, product: int, rows: int) -> tuple[Ints, Doubles, Doubles]:
    """Give as many rows of one product: who, and on which day with its fraction; and per person the first day."""
    many = 2 * rows + 200  # people: more than enough, for some of them never come
    lasting = rng.random(many) < LASTING[product]
    born = np.where(lasting, rng.uniform(-458, DAYS, many), rng.uniform(0, DAYS, many))
    life = np.where(lasting, rng.exponential(np.where(rng.random(many) < 0.25, 6, 450)), 0)
    start, stop = np.maximum(born, 0), np.minimum(born + life, DAYS)
    rate = np.exp(rng.normal(np.log(1 / 60), 0.9, many))  # visits per day
    later = rng.poisson(rate * np.maximum(stop - start, 0))
    visits = later + (born >= 0)
    # Nearly half come in one spell only, so that most clients of the last weeks were not there before.
    spell = rng.random(many) < 0.45
    start = np.where(spell & (born < 0), start + rng.random(many) * (stop - start), start)
    stop = np.where(spell, np.minimum(stop, start + rng.exponential(20, many)), stop)
    client = np.repeat(np.arange(many), visits)
    is_first = np.r_[True, client[1:] != client[:-1]] & (born[client] >= 0)
    time = np.where(is_first, born[client], start[client] + rng.random(len(client)) * (stop - start)[client])
    repeats = rng.geometric(1 / 1.18, len(client))
    client, time = np.repeat(client, repeats)[:rows], np.repeat(time, repeats)[:rows]
    shares = np.array(PERIODS) * (1 - sum(np.array(part) for part in MIX.values()) if product == W else np.array(MIX[product]))
    knots = np.r_[0, np.cumsum(shares) / shares.sum()] * DAYS

    def calendar(value: Doubles) -> Doubles:
        return np.asarray(np.where(value < 0, value + 1, np.interp(value, knots, STARTS)))

    names, client = np.unique(client, return_inverse=True)
    return client, np.minimum(calendar(time), DAYS + 0.999), calendar(born[names])


def _owners(rng: np.random.Generator, product: Bytes, person: Ints, born: Ints) -> tuple[Ints, Owners]:
    """Give people cards and addresses. Who shares card, address and first day is one client, for nobody can tell them apart."""
    people = len(born)
    kind = np.zeros(people, dtype=np.int8)
    kind[person] = product
    risk = rng.standard_normal(people, dtype=np.float32)
    deck = _deck(rng)
    card = _dealt(rng, deck, np.bincount(person, minlength=people), kind, risk)
    sizes = np.array(numbers()["addr1"], dtype=np.float64)
    sizes /= sizes.sum()
    home = rng.choice(len(sizes), len(deck.count), p=sizes)[card]
    away = rng.choice(len(sizes), people, p=(sizes + 1e-5) / np.sum(sizes + 1e-5))
    address = np.where(rng.random(people) < HOME, home, away)
    address[rng.random(people) < np.array([0.0015, 0.945, 0.004, 0.004, 0.01])[kind]] = -1
    key = (card * 400 + address) * 2000 + born + 1000
    key = np.where(address >= 0, key, -1 - np.arange(people))
    _, first, client = np.unique(key, return_index=True, return_inverse=True)
    return client[person], Owners(len(first), deck, card[first], address[first], born[first], risk[first])


def _compromised(rng: np.random.Generator, product: Bytes, client: Ints, owners: Owners, time: Doubles) -> tuple[Bools, Ints]:
    """Choose compromised clients until fraud has its share of each product's rows; give fraud, and each client's state.

    The state is 0 for clients never compromised, 1 for those from their first row on, 2 for those who were legit before.
    """
    rows, clients = len(client), owners.count
    size = np.bincount(client, minlength=clients)
    begin = np.cumsum(size) - size
    late = (rng.random(clients) < LATE) & (size > 1)
    since = np.where(late, 1 + np.floor(rng.random(clients) * (size - 1)), 0).astype(np.int64)
    place = np.arange(rows) - begin[client]
    would = (place == since[client]) | ((place > since[client]) & (rng.random(rows) < PERSISTENCE))
    early = time[begin] < SECOND_MONTH
    returning = owners.born < np.floor(time[begin])
    few = np.where(owners.address < 0, FEW_UNPLACED, FEW)
    weight = (
        np.minimum(size, few) ** 1.5
        * few
        / np.maximum(size, few)
        * np.select([early, time[begin] > LAST_MONTH], [0.52, 1.05], 1.0)
        * np.where(returning, 0.35, 1.0)
        * np.exp(0.7 * owners.risk)
    )
    lot = rng.exponential(1, clients) / weight
    cost = np.bincount(client, weights=would, minlength=clients)
    state = np.zeros(clients, dtype=np.int64)
    kind = product[begin]
    order = np.argsort(lot)
    costs = {number: np.cumsum(cost[order][kind[order] == number]) for number in range(5)}
    places = {number: order[kind[order] == number] for number in range(5)}
    total = sum(count * fraud for count, fraud, _ in numbers()["products"].values()) / numbers()["rows"]
    have = np.bincount(product, minlength=5)
    target = np.array([numbers()["products"][name][1] for name in PRODUCTS]) * 0.03499 / total
    wanted = target * have
    for _ in range(5):  # a client may buy several products: approach what all of them together should have
        state[:] = 0
        for number in range(5):
            chosen = places[number][costs[number] <= wanted[number]]
            state[chosen] = 1 + late[chosen]
        made = np.bincount(product[would & (state > 0)[client]], minlength=5)
        wanted *= (target * have + 0.5) / (made + 0.5)
    return would & (state > 0)[client], state


def _traits(
    rng: np.random.Generator, product: Bytes, client: Ints, owners: Owners, time: Doubles, fraud: Bools, state: Ints
) -> tuple[Floats, Floats, Floats]:
    """Draw account (the client's alone), velocity (in part the client's) and event (the row's) for every row."""
    clients = owners.count
    kind = np.zeros(clients, dtype=np.int8)
    kind[client] = product
    blatant = rng.random(clients) < BLATANT[kind]
    plain = 1 + PLAIN * max(0.0, np.log10(200_000 / max(len(client), 1000)))
    shift = np.where(blatant[:, None], BLATANT_TRAITS, SUBTLE_TRAITS).astype(np.float32) * np.float32(plain)
    account = np.float32(0.9) * rng.standard_normal(clients, dtype=np.float32) + np.float32(0.436) * owners.risk
    account += shift[:, 0] * (state == 1)
    lasting = rng.standard_normal(clients, dtype=np.float32)
    at_once = np.cumsum(np.r_[True, (client[1:] != client[:-1]) | (np.floor(time[1:]) != np.floor(time[:-1]))]) - 1

    def noise() -> Floats:
        drawn = np.float32(0.35) * rng.standard_normal(at_once[-1] + 1, dtype=np.float32)[at_once]
        return np.asarray(drawn + np.float32(0.937) * rng.standard_normal(len(client), dtype=np.float32))

    shown = np.where(fraud, np.interp(time, (0, DAYS), (FADES, 1)), 0).astype(np.float32)
    velocity = 0.6 * lasting[client] + 0.8 * noise() + shift[client, 1] * shown
    event = noise() + shift[client, 2] * shown
    return account[client], velocity.astype(np.float32), event.astype(np.float32)


# Columns


def _texts(names: Sequence[Any], codes: NDArray[Any]) -> Any:
    """Give a column of text; code -1 is a missing value."""
    return pd.array([str(name) for name in names], dtype="str").take(codes.astype(np.int64), allow_fill=True)


def _cut(view: Floats, shares: Any) -> Ints:
    """Cut a view into classes of these shares, lowest first; the shares hold to a fraction of a percent."""
    if not len(view):
        return np.zeros(0, dtype=np.int64)
    levels = np.cumsum(np.asarray(shares, dtype=np.float64))
    limits = np.quantile(view[:: max(1, len(view) // 40_000)], np.minimum(levels[:-1] / levels[-1], 1))
    return np.searchsorted(limits.astype(np.float32), view)


def _curve(view: Floats, levels: Any, values: Any) -> Doubles:
    """Map a view to values by its quantiles, straight between them."""
    if not len(view):
        return np.zeros(0)
    sample = view[:: max(1, len(view) // 40_000)]
    return np.asarray(np.interp(view, np.quantile(sample, levels), values))


def _present(rows: Rows, name: str, chance: Floats, shares: dict[int, Any], among: Bools | None = None) -> Bools:
    """Choose the rows that have a value: shares by product (and period, where they drift), moved so that the whole is as published."""
    wanted = 1 - numbers()["missing"][name] / 100 if name[0] != "V" else 1 - _block_missing(name) / 100
    table = np.zeros((5, len(PERIODS)))
    for product, share in shares.items():
        table[product] = share
    cells = rows.known.setdefault("cell", _cells(rows))
    weight = np.bincount(cells if among is None else cells[among], minlength=table.size).reshape(table.shape) / len(rows)
    low, high = -8.0, 8.0
    fixed = (table <= 0) | (table >= 1)
    odds = np.log(np.clip(table, 1e-9, 1 - 1e-9) / np.clip(1 - table, 1e-9, 1))
    for _ in range(50):
        middle = (low + high) / 2
        moved = np.where(fixed, table, 1 / (1 + np.exp(-odds - middle)))
        low, high = (middle, high) if np.sum(moved * weight) < wanted else (low, middle)
    found: Bools = chance < moved.ravel()[cells]
    return found if among is None else found & among


def _cells(rows: Rows) -> Ints:
    period = np.searchsorted(STARTS[1:-1], rows.day, side="right")
    return rows.product.astype(np.int64) * len(PERIODS) + period


def _block_missing(name: str) -> float:
    number = int(name[1:])
    return float(next(block["missing"] for block in numbers()["v"]["blocks"] if any(column[0] == number for column in block["columns"])))


def _with_gaps(values: NDArray[Any], present: Bools) -> Doubles:
    return np.asarray(np.where(present, values, np.nan), dtype=np.float64)


def _amounts(rows: Rows) -> Doubles:
    """Draw amounts in dollars; of a client's, half are its usual one."""
    middle = np.log(np.array([79.0, 32, 125, 50, 35]))[rows.product]
    wide = np.array([0.93, 0.93, 0.66, 0.6, 1.0])[rows.product]
    usual = rows.habit()
    again = rows.rng.random(len(rows)) < 0.5
    spread = np.where(again & ~rows.fraud, 0.0, 0.75 * rows.noise() + 0.3 * rows.event)
    normal = 0.75 * usual + spread
    raw = np.exp(middle + wide * (normal + 0.13 * normal**2))
    rows.known["usual"] = np.exp(middle + wide * 0.75 * usual).astype(np.float32)
    ending = rows.chance()
    whole = np.maximum(np.round(raw), 1)
    foreign = np.round(raw, 3)
    domestic = np.select([ending < 0.51, ending < 0.8, ending < 0.87], [whole, whole - 0.05, whole - 0.5], np.round(raw, 2))
    amount = np.select([rows.product == C, rows.product == W], [foreign, domestic], whole)
    rows.known["amount"] = amount.astype(np.float32)
    return np.asarray(np.clip(np.round(amount, 3), 0.251, 31_937.391))


def _deck(rng: np.random.Generator) -> Deck:
    """Make the cards: the commonest as published, the others with counts by rank."""
    cards = numbers()["cards"]
    top = np.array(cards["card1"])
    ranks, counts = np.array(cards["card1_by_rank"]).T
    tail = np.round(np.interp(np.arange(len(top), ranks[-1] + 1), ranks, counts)).astype(np.int64)
    count = np.r_[top[:, 1].astype(np.int64), tail]
    free = np.setdiff1d(np.arange(1000, 18_397), top[:, 0].astype(np.int64))
    card1 = np.r_[top[:, 0].astype(np.int64), rng.choice(free, len(tail), replace=False)]
    known = (np.log(np.maximum(top[:, 2], 0.002)) - np.log(0.03)) / 0.7
    rate = np.r_[known, rng.normal(0, 1, len(tail))]
    return Deck(card1, count, rate, {name: _kind(rng, name, count, rate) for name in ("card2", "card3", "card4", "card5", "card6")})


def _kind(rng: np.random.Generator, name: str, count: Ints, rate: Doubles) -> Ints:
    """Give every card its card2 (to card6): a place in the list of the published values, riskier ones for riskier cards."""
    shares = np.array([rows for _, rows, _ in numbers()["cards"][name]], dtype=np.float64)
    risk = np.argsort([fraud for _, _, fraud in numbers()["cards"][name]], kind="stable")
    kind = np.empty(len(count), dtype=np.int64)
    # Rare values fall to rare cards, both by size: a line of large cards would step over them.
    small = np.flatnonzero(count <= 60)
    small = small[np.argsort(count[small] * np.exp(0.3 * rng.standard_normal(len(small))))]
    by_size = np.argsort(shares, kind="stable")
    by_size = by_size[by_size != len(shares) - 1]  # the last is the missing value: always rare, and the commonest of these
    room = 0.45 * count[small].sum() - shares[-1]
    rare = np.r_[by_size[: np.searchsorted(np.cumsum(shares[by_size]), room)], len(shares) - 1]
    rare = rare[shares[rare] < 9000]
    ends = np.cumsum(shares[rare])
    place = np.searchsorted(ends, np.cumsum(count[small]) - count[small] / 2)
    taken = place < len(rare)
    kind[small[taken]] = rare[place[taken]]
    rest = np.setdiff1d(np.arange(len(count)), small[taken])
    rest = rest[np.argsort(0.85 * rate[rest] + 0.5 * rng.standard_normal(len(rest)))]
    common = risk[~np.isin(risk, rare)]
    ends = np.cumsum(shares[common]) / shares[common].sum()
    place = np.searchsorted(ends, (np.cumsum(count[rest]) - count[rest] / 2) / count[rest].sum())
    kind[rest] = common[place.clip(0, len(common) - 1)]
    return kind


def _dealt(rng: np.random.Generator, deck: Deck, size: Ints, product: Bytes, risk: Floats) -> Ints:
    """Give every person a card, so that cards have about their published rows; foreign ones to product C, risky ones to risky people."""
    rows, whole = int(size.sum()), int(deck.count.sum())
    quota = rng.multivariate_hypergeometric(deck.count, rows, method="marginals") if rows <= whole else deck.count * rows // whole
    card = np.full(len(size), -1)
    from_abroad = (product == C) != (rng.random(len(size)) < 0.02)
    abroad = deck.kinds["card3"] != 0
    for place in (False, True):
        people, cards = np.flatnonzero(from_abroad == place), np.flatnonzero(abroad == place)
        # Rare cards get people of one row, so that the tail keeps its length; the others lie along a line.
        once = rng.permutation(people[size[people] == 1])
        rare = cards[np.argsort(quota[cards], kind="stable")]
        rare = rare[: np.searchsorted(np.cumsum(quota[rare]), 0.6 * len(once))]
        slots = np.repeat(rare, quota[rare])
        card[once[: len(slots)]] = slots
        people = people[card[people] < 0]
        people = people[np.argsort(0.6 * risk[people] + 0.8 * rng.standard_normal(len(people)))]
        cards = np.setdiff1d(cards, rare)
        cards = cards[np.argsort(0.8 * deck.rate[cards] + 0.6 * rng.standard_normal(len(cards)))]
        ends = np.cumsum(quota[cards]) / np.maximum(np.sum(quota[cards]), 1)
        middle = (np.cumsum(size[people]) - size[people] / 2) / np.maximum(np.sum(size[people]), 1)
        card[people] = cards[np.minimum(np.searchsorted(ends, middle), len(cards) - 1)]
    return card


def _cards(rows: Rows) -> dict[str, Any]:
    """Give card1 to card6: the client's card, and what follows from it."""
    deck, card = rows.owners.deck, rows.owners.card[rows.client]
    columns: dict[str, Any] = {"card1": deck.card1[card]}
    for name, kind in deck.kinds.items():
        values = [value for value, _, _ in numbers()["cards"][name]]
        if name in {"card4", "card6"}:
            columns[name] = _texts(values, np.where(kind == len(values) - 1, -1, kind)[card])
        else:
            columns[name] = np.array([np.nan if value is None else value for value in values])[kind][card]
    return columns


def _places(rows: Rows) -> dict[str, Any]:
    """Give addresses, distances and emails, most of them the client's own."""
    rng = rows.rng
    address = rows.owners.address[rows.client]
    values = rng.permutation(np.arange(100, 541))[: len(numbers()["addr1"])].astype(np.float64)
    addr1, has_address = values[address], address >= 0
    countries = [87.0, 60, 96, 32, 65, 16, 31, 19, 26, 27]
    addr2 = rng.choice(countries, rows.owners.count, p=[0.991, 0.0055, 0.001, 0.0005, 0.0005, *[0.0003] * 5])[rows.client]
    dist1 = np.floor(_curve(rows.view(event=0.1, habit=0.85), (0, 0.1, 0.5, 0.75, 0.9, 0.97, 1), (0, 1, 8, 24, 150, 900, 10_286)))
    dist2 = np.floor(_curve(rows.view(event=0.15, habit=0.8), (0, 0.1, 0.5, 0.75, 0.9, 0.97, 1), (0, 5, 37, 206, 700, 1500, 11_623)))
    columns: dict[str, Any] = {
        "addr1": _with_gaps(addr1, has_address),
        "addr2": _with_gaps(addr2, has_address),
        "dist1": _with_gaps(dist1, _present(rows, "dist1", rows.chance(), {W: (0.52, 0.52, 0.52, 0.53, 0.55, 0.56, 0.56, 0.56)})),
        "dist2": _with_gaps(dist2, _present(rows, "dist2", rows.chance(), {C: 0.1, R: 0.4, H: 0.4, S: 0.4})),
    }
    view = rows.view(account=0.3, habit=1)
    has = {
        "P_emaildomain": _present(rows, "P_emaildomain", rows.chance(), {W: 0.81, C: 0.97, R: 0.95, H: 0.93, S: 0.6}),
        "R_emaildomain": _present(rows, "R_emaildomain", rows.chance(), {C: 0.96, R: 0.94, H: 0.93, S: 0.4}),
    }
    for name, present in has.items():
        columns[name] = _category(rows, name, view + 0.2 * rows.habit(), present)
    return columns


def _category(rows: Rows, name: str, view: Floats, present: Bools, others: Callable[[int], str] = "other {}".format) -> Any:
    """Give a column of text with the published shares; the order in which a view rises through the values is chosen once."""
    given: dict[str, Any] = numbers()["categories"].get(name) or UNPUBLISHED[name]
    count, left = given["others"]
    names = [value for value, _ in given["values"]] + [others(number) for number in range(count)]
    shares = np.r_[[share for _, share in given["values"]], left * _zipf(count)]
    order = np.random.default_rng(len(names)).permutation(len(names))
    codes = np.full(len(rows), -1)
    codes[present] = order[_cut(view[present], shares[order])]
    return _texts(names, codes)


def _zipf(count: int) -> Doubles:
    weights = 1 / (np.arange(count) + 20.0)
    return np.asarray(weights / weights.sum()) if count else np.zeros(0)


def _counts(rows: Rows) -> dict[str, Any]:
    """Give C1 to C14: counts that rise together with velocity; some are zero in W, some elsewhere."""
    levels = (0, 0.53, 0.70, 0.78, 0.84, 0.88, 0.92, 0.95, 0.97, 0.99, 0.997, 0.9995, 1)
    values = (1, 1.99, 2.99, 3.99, 6, 9, 16, 30, 60, 150, 600, 2000, 4685)
    lowered = (0, 0.99, 1.5, 2.99, 4, 6, 11, 20, 40, 100, 450, 1500, 2253)
    common = rows.view(account=0.18, velocity=0.33, habit=0.75)
    calm = rows.view(account=-0.35, velocity=-0.1, habit=0.9)
    is_w = rows.product == W

    def count(share: float, own: Floats, values: Sequence[float]) -> Doubles:
        return np.floor(_curve(np.float32(share) * common + np.float32((1 - share**2) ** 0.5) * own, levels, values))

    columns: dict[str, Any] = {}
    for number in range(1, 15):
        own = rows.noise() if number != 13 else calm
        if number in {1, 2, 11}:
            column = count(0.975, own, values)
        elif number in {6, 14}:
            column = count(0.955, own, lowered)
        elif number == 13:
            column = count(0.9, own, [min(2.5 * value, 2918) for value in values])
        elif number == 3:
            column = np.where((rows.rng.random(len(rows)) < 0.016) & ~is_w, 1, 0)
        elif number in {5, 9}:
            few = _curve(-0.3 * common + own, (0, 0.4, 0.65, 0.8, 0.9, 0.99, 1), (0, 0.99, 2, 4, 8, 40, 349))
            column = np.where(is_w, np.floor(few), 0)
        else:
            column = np.where(is_w, 0, np.floor(_curve(0.7 * common + 0.7 * own, levels, lowered)))
        columns[f"C{number}"] = column.astype(np.float64)
    return columns


def _days(rows: Rows) -> dict[str, Any]:
    """Give D1 to D15: days since the client did this or that. A client's day minus D1 never changes."""
    rng = rows.rng
    d1 = (rows.day - rows.born).clip(0, 640).astype(np.float64)
    order = np.lexsort((rows.seconds, rows.client))
    gap = np.full(len(rows), -1.0)
    gap[order[1:]] = np.where(rows.client[order][1:] == rows.client[order][:-1], np.diff(rows.day[order]), -1)
    before = np.floor(np.minimum(rng.exponential(30, len(rows)), d1))  # an old client's previous row was before the table began
    between = (gap > 0) & (rng.random(len(rows)) < 0.08)  # a row that the table does not have
    d3 = np.select([between, gap >= 0], [np.floor(gap * rng.random(len(rows))), gap], before)
    lot = rng.random(len(rows))
    at_once = float((d1 == 0).mean())

    def later(name: str, share: float) -> float:
        """Give the share that has a value where D1 > 0, from that where it is 0 and the published whole."""
        found: float = (1 - numbers()["missing"][name] / 100 - at_once * share) / max(1 - at_once, 0.01)
        return found

    has_d2 = np.where(d1 > 0, lot < later("D2", 0.053), lot < 0.053)
    d2 = np.where((d1 > 0) & (lot > 0.885), d1 + np.ceil(rng.exponential(30, len(rows))), d1)
    has_d3 = rng.random(len(rows)) < np.where(d1 > 0, later("D3", 0.1), 0.1)
    has_d1 = rows.rng.random(len(rows)) >= 0.0021488
    rows.known["has_d1"] = has_d1

    def anchored(equal: float, later: float) -> Doubles:
        """Count from the client's first day, from a later one, or from an earlier one."""
        lot = rows.chance()
        sooner = np.floor(-120 * np.log1p(-rows.chance()))
        moved = np.select([lot < equal, lot < equal + later], [0, -np.floor(640 * rows.chance() ** 2)], sooner)
        return np.asarray((d1 + moved).clip(0, 876))

    early = (0.03, 0.03, 0.03, 0.2, 0.2, 0.2, 0.2, 0.2)
    chance = rows.chance()
    rows.known["chance RHS"] = chance
    rhs = {W: 0.99, C: 0.99, R: early, H: early, S: early}
    has: dict[str, Bools] = {"D10": _present(rows, "V12", chance, rhs), "V53": _present(rows, "V53", chance, rhs)}
    has["D15"] = _present(rows, "D15", chance, rhs | {W: 0.975, C: 0.97})
    matched = rows.chance()
    rows.known["chance M"] = matched
    share_m = np.array([0.57, 0.57, 0.57, 0.525, 0.62, 0.885, 0.905, 0.905])
    rows.known["M1"] = _present(rows, "M1", matched, {W: share_m})
    has["D11"] = _present(rows, "D11", matched, {W: share_m - 0.02})
    third = rows.chance()
    rows.known["M6"] = _present(rows, "M6", third, {W: 0.96})
    has["D4"] = _present(rows, "D4", third, {W: 0.96, C: 0.02, R: 0.02, H: 0.02, S: 0.02})
    rows.known |= has
    has["D5"] = has_d3 & (rng.random(len(rows)) < 0.475 / max(0.01, has_d3.mean()))
    hours = (rows.seconds // 3600) % 24
    d9 = np.round(hours / 24, 6)
    rows.known["D8"] = _present(rows, "D8", rows.chance(), {C: 0.5, R: 0.55, H: 0.6, S: 0.5}, rows.known["identity"])
    long = np.floor(_curve(rows.view(event=-0.2, account=-0.2), (0, 0.2, 0.5, 0.75, 0.95, 1), (0, 6, 38, 190, 700, 1707)))

    def rare(name: str, shares: dict[int, Any], zero_share: float, account: float) -> Doubles:
        view = rows.view(account=account)
        levels = (0, zero_share, zero_share + 0.3 * (1 - zero_share), 0.95, 1)
        return _with_gaps(np.floor(_curve(view, levels, (0, 0.99, 20, 400, 843))), _present(rows, name, rows.chance(), shares))

    return {
        "D1": _with_gaps(d1, has_d1),
        "D2": _with_gaps(d2, has_d2 & has_d1),
        "D3": _with_gaps(d3, has_d3 & has_d1),
        "D4": _with_gaps(anchored(0.55, 0.25), has["D4"]),
        "D5": _with_gaps(np.where(rng.random(len(rows)) < 0.6, d3, d3 + np.floor(rng.exponential(8, len(rows)))), has["D5"] & has_d1),
        "D6": rare("D6", {C: 0.9, R: 0.1, H: 0.15, S: 0.2}, 0.5, -0.25),
        "D7": rare("D7", {C: 0.4, R: 0.1, H: 0.1, S: 0.2}, 0.55, -0.35),
        "D8": _with_gaps(np.round(long + d9, 6), rows.known["D8"]),
        "D9": _with_gaps(d9, rows.known["D8"]),
        "D10": _with_gaps(anchored(0.5, 0.35), has["D10"]),
        "D11": _with_gaps(anchored(0.6, 0.2), has["D11"]),
        "D12": rare("D12", {C: 0.9, R: 0.02, H: 0.02, S: 0.05}, 0.6, -0.3),
        "D13": rare("D13", {C: 0.75, R: 0.1, H: 0.1, S: 0.1}, 0.75, -0.2),
        "D14": rare("D14", {C: 0.75, R: 0.1, H: 0.1, S: 0.1}, 0.6, -0.2),
        "D15": _with_gaps(anchored(0.5, 0.25), has["D15"]),
    }


def _matches(rows: Rows) -> dict[str, Any]:
    """Give M1 to M9: whether names, addresses and the like match."""
    share_7 = (0.28, 0.28, 0.28, 0.31, 0.49, 0.74, 0.74, 0.775)
    chance = rows.known["chance M"]
    has = dict.fromkeys(("M1", "M2", "M3"), rows.known["M1"])
    has["M4"] = _present(rows, "M4", _risky_chance(rows, -0.35), {W: 0.57, C: 0.9, S: 0.1})
    has["M5"] = _present(rows, "M5", rows.chance(), {W: 0.545})
    has["M6"] = rows.known["M6"]
    has["M7"] = _present(rows, "M7", chance, {W: share_7})
    has |= dict.fromkeys(("M8", "M9"), _present(rows, "M8", chance, {W: share_7}))
    columns = {}
    for name, present in has.items():
        if name == "M4":
            continue
        loading = {"M3": -0.2, "M2": -0.15, "M5": 0.2, "M6": -0.2}.get(name, 0.1)
        columns[name] = _category(rows, name, rows.view(account=loading, habit=0.6), present)
    shares = {W: (0.66, 0.17, 0.17), C: (0.25, 0.15, 0.6), S: (0.5, 0.25, 0.25)}
    view = rows.view(account=0.58, event=0.22, habit=0.6)
    codes = np.full(len(rows), -1)
    for product, cut in shares.items():
        mine = has["M4"] & (rows.product == product)
        codes[mine] = _cut(view[mine], cut)
    columns["M4"] = _texts(("M0", "M1", "M2"), codes)
    return {name: columns[name] for name in has}


def _risky_chance(rows: Rows, account: float) -> Floats:
    """Give a share of 1 that falls (or rises) with the account's trait."""
    view = rows.view(account=account, habit=1)
    return _curve(view, np.linspace(0, 1, 101), np.linspace(0, 1, 101)).astype(np.float32)


def _vesta(rows: Rows) -> dict[str, Any]:
    """Give V1 to V339 by their 15 blocks; the columns of a block are missing together."""
    about = numbers()["v"]
    chance = rows.known["chance identity"]
    few = rows.chance()
    others = {R: 0.99, H: 0.99, S: 0.99}
    has_143 = _present(rows, "V143", few, others)
    has_138 = has_143.copy()
    has_138[rows.rng.choice(np.flatnonzero(has_143), min(1 + len(rows) // 100_000, int(has_143.sum())), replace=False)] = False
    presence = {
        1: rows.known["D11"], 12: rows.known["D10"], 35: rows.known["D4"], 53: rows.known["V53"], 75: rows.known["D15"],
        95: rows.rng.random(len(rows)) >= 0.000532, 138: has_138, 143: has_143,
        167: _present(rows, "V167", chance, {C: 0.84} | others), 169: _present(rows, "V169", chance, {C: 0.84} | others),
        217: _present(rows, "V217", chance, {C: 0.7} | others), 220: _present(rows, "V220", chance, {C: 0.86} | others),
        279: rows.rng.random(len(rows)) >= 0.00002, 281: rows.known["has_d1"], 322: _present(rows, "V322", few, others),
    }  # fmt: skip
    money = {number for first, last in about["money"] for number in range(first, last + 1)}
    late = ((rows.day - 1) / DAYS).astype(np.float32)
    columns: dict[str, Any] = {}
    for block in about["blocks"]:
        has = np.flatnonzero(presence[block["columns"][0][0]])
        columns |= _block(rows, block["columns"], has, late[has], money)
    return {f"V{number}": columns[f"V{number}"] for number in range(1, 340)}


def _block(rows: Rows, described: list[list[Any]], has: Ints, late: Floats, money: set[int]) -> dict[str, Any]:
    """Give the columns of one block: how risky the row looks, a factor of the block, one of the group, and the column's own noise."""
    first = numbers()["v"]["first_component"]
    client, visit, rng = rows.client[has], rows.visit[has], rows.rng
    account, velocity = rows.account[has], rows.velocity[has]
    unit = rows.known["usual"][has]
    amount = rows.known["amount"][has]

    def factor() -> Floats:
        lasting = rng.standard_normal(rows.owners.count, dtype=np.float32)[client]
        return np.float32(0.95) * lasting + np.float32(0.312) * rows.noise()[has]

    def own() -> Floats:
        lasting = rng.standard_normal(rows.owners.count, dtype=np.float32)[client]
        return np.float32(0.9) * lasting + np.float32(0.436) * rng.standard_normal(rows.visits, dtype=np.float32)[visit]

    turns = {b: np.random.default_rng(b).uniform(0.3, 1.3) for _, b, *_ in described}
    looks = {}
    for b, turn in turns.items():
        blurred = account + np.float32(0.8) * rng.standard_normal(len(has), dtype=np.float32)
        looks[b] = np.float32(np.cos(turn)) * blurred + np.float32(np.sin(turn)) * velocity
    factors = {b: factor() for b in turns}
    groups = {(b, g): factor() for _, b, g, *_ in described}
    tail = np.array([3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 200, 400])
    values = np.r_[0, 1, 2, tail]
    columns: dict[str, Any] = {}
    for number, b, g, zero, one, slope, early, at_end in described:
        shared = np.float32(first[b] ** 0.5)
        rest = np.float32((1 - first[b]) ** 0.5)
        view = shared * (np.float32(0.7) * factors[b] + np.float32(0.71) * groups[b, g]) + rest * own()
        loading = np.float32(early) + np.float32(at_end - early) * late
        view += np.clip(np.float32(LOADING if number < 138 or number > 278 else 1.2 * LOADING) * loading, -0.9, 0.9) * looks[b]
        above = (1 - zero - one) * (tail / 2.0) ** -slope
        count = values[_cut(view, np.diff(np.r_[0, zero, zero + one, 1 - above, 1]))].astype(np.float64)
        if number in money:
            count = np.round(count * np.minimum(np.where(number % 2, unit, amount), 2500), 4 if number % 3 else 2)
        column = np.full(len(rows), np.nan)
        column[has] = count
        columns[f"V{number}"] = column
    return columns


def _identity(rows: Rows) -> pd.DataFrame:
    """Give the identity table: the rows that came with a device."""
    with_identity = rows.known["identity"]
    which = np.flatnonzero(with_identity)
    missing = numbers()["missing"]
    shared: dict[str, Any] = {}

    def has(name: str, group: str) -> Bools:
        """Columns of a group are missing in the same rows."""
        key = f"{group} {missing[name]:.4f}"
        chance = shared.setdefault(group, rows.chance())
        if key not in shared:
            wide: dict[int, Any] = {C: 0.93, R: 0.97, H: 0.97, S: 0.97}
            rhs: dict[int, Any] = {C: 0.0, R: 0.95, H: 0.95, S: 0.9}
            shares = {"screen": rhs, "14": rhs, "33": rhs}.get(group, wide)
            shared[key] = _present(rows, name, chance, shares, with_identity) if group != "9" else rows.known["D8"]
        found: Bools = shared[key]
        return found

    numeric: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
        "id_01": ("", (0.02, 0.03, 0.05, 0.09, 0.12, 0.54, 0.15), (-100, -50, -25, -20, -10, -5, 0)),
        "id_03": ("3", (0.03, 0.92, 0.05), (-1, 0, 3)), "id_04": ("3", (0.02, 0.98), (-8, 0)),
        "id_05": ("5", (0.03, 0.72, 0.1, 0.08, 0.07), (-2, 0, 2, 4, 11)), "id_06": ("5", (0.06, 0.08, 0.1, 0.76), (-40, -12, -5, 0)),
        "id_07": ("7", (0.2, 0.5, 0.3), (0, 12, 29)), "id_08": ("7", (0.3, 0.4, 0.3), (-54, -33, -15)),
        "id_09": ("9", (0.05, 0.85, 0.1), (-1, 0, 2)), "id_10": ("9", (0.06, 0.06, 0.88), (-22, -5, 0)),
        "id_11": ("11", (0.95, 0.03, 0.02), (100, 95.08, 93.48)), "id_13": ("13", (0.05, 0.1, 0.35, 0.4, 0.1), (20, 33, 49, 52, 63)),
        "id_14": ("14", (0.08, 0.15, 0.2, 0.5, 0.07), (-480, -420, -360, -300, 60)), "id_17": ("17", (0.57, 0.4, 0.03), (166, 225, 102)),
        "id_18": ("18", (0.55, 0.25, 0.1, 0.1), (15, 13, 12, 18)), "id_19": ("19", (0.2, 0.3, 0.15, 0.15, 0.2), (266, 410, 427, 529, 312)),
        "id_20": ("20", (0.35, 0.15, 0.2, 0.3), (507, 222, 325, 533)), "id_21": ("7", (0.5, 0.3, 0.2), (252, 228, 849)),
        "id_22": ("7", (0.8, 0.1, 0.1), (14, 41, 33)), "id_24": ("24", (0.7, 0.2, 0.1), (11, 15, 16)),
        "id_25": ("7", (0.4, 0.3, 0.3), (321, 205, 426)), "id_26": ("7", (0.4, 0.3, 0.3), (161, 184, 142)),
        "id_32": ("screen", (0.08, 0.9, 0.02), (32, 24, 16)),
    }  # fmt: skip
    columns: dict[str, Any] = {"TransactionID": which + 2_987_000}
    for number in range(1, 39):
        name = f"id_{number:02d}"
        if name == "id_02":
            view = rows.view(event=0.15, habit=0.3)[which]
            made = np.floor(_curve(view, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (1, 12_000, 67_000, 125_800, 228_749, 550_000, 999_595)))
            columns[name] = np.where(has(name, "2")[which], made, np.nan)
        elif name in numeric:
            group, shares, values = numeric[name]
            loading = float(np.random.default_rng(number).choice([-1, 1])) * 0.22
            codes = _cut(rows.view(account=loading, habit=0.6)[which], shares)
            present = np.ones(len(which), dtype=bool) if number == 1 else has(name, group)[which]
            columns[name] = np.where(present, np.array(values, dtype=np.float64)[codes], np.nan)
        else:
            group = {12: "", 23: "7", 27: "7", 30: "screen", 33: "33", 34: "screen", 18: "18"}.get(number, "11")
            present = with_identity if number == 12 else has(name, group) & with_identity
            view = rows.view(account=0.25, habit=0.7)
            columns[name] = _category(rows, name, view, present, _screen).take(which)
    for name in ("DeviceType", "DeviceInfo"):
        present = has(name, "11" if name == "DeviceType" else "info") & with_identity
        columns[name] = _category(rows, name, rows.view(account=0.3, habit=0.9), present, "device {} Build/NRD90M".format).take(which)
    return pd.DataFrame(columns, copy=False)


def _screen(number: int) -> str:
    return f"{800 + 7 * number}x{480 + 5 * number}"
