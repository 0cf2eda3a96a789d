"""A table to try out with: card payments of customers with habits, some of them fraud."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

START = np.datetime64("2024-01-01T00:00:00", "s")
DAYS = 180
FRAUD = 0.045  # share of the rows
STRENGTH = 1.6  # of the evidence below; a boosted model then reaches an AUC of about .91
# Per value: how often it occurs, and how much it speaks for fraud.
MERCHANTS = {
    "grocery": (0.27, -1.0), "fuel": (0.15, -0.7), "restaurant": (0.17, -0.6), "travel": (0.08, 0.3),
    "fashion": (0.13, 0.0), "electronics": (0.1, 0.8), "games": (0.06, 0.9), "gift cards": (0.04, 1.5),
}  # fmt: skip
COUNTRIES = {
    "US": (0.4, 0.0), "GB": (0.17, 0.0), "DE": (0.14, -0.3), "FR": (0.12, -0.1), "BR": (0.08, 0.5), "RO": (0.05, 0.6), "NG": (0.04, 0.8),
}  # fmt: skip
EMAILS = {"gmail.com": (0.38, 0.0), "yahoo.com": (0.2, 0.2), "company": (0.24, -0.9), "disposable": (0.06, 1.5), None: (0.12, 0.6)}
DEVICES = {"ios": (0.33, -0.5), "android": (0.3, 0.2), "windows": (0.2, 0.3), "mac": (0.13, -0.4), "linux": (0.04, 0.7)}
CARDS = {"debit": (0.5, -0.5), "credit": (0.42, 0.1), "prepaid": (0.08, 1.1)}
Floats = NDArray[np.float64]


def table(rows: int, seed: int) -> pd.DataFrame:
    """Make payments in order of time. Fraud is drawn from a probability, so that it can never be told for sure."""
    rng = np.random.default_rng(seed)
    customers = max(rows // 8, 20)
    customer = rng.choice(customers, rows, p=rng.dirichlet(np.full(customers, 2.0)))
    hour = (rng.normal(14, 3, customers)[customer] + rng.standard_t(3, rows) * 2) % 24
    seconds = np.floor(rng.random(rows) * DAYS) * 86_400 + np.floor(hour * 3600)
    order = np.lexsort((customer, seconds))
    customer, hour, seconds = customer[order], hour[order], seconds[order]

    home, _ = _drawn(rng, COUNTRIES, customers)
    email, email_risk = _drawn(rng, EMAILS, customers)
    card, card_risk = _drawn(rng, CARDS, customers)
    device, device_risk = _drawn(rng, DEVICES, customers)
    merchant, merchant_risk = _drawn(rng, MERCHANTS, rows)
    other_country, country_risk = _drawn(rng, COUNTRIES, rows)
    other_device, other_device_risk = _drawn(rng, DEVICES, rows)
    abroad, new_device = rng.random(rows) < 0.08, rng.random(rows) < 0.12
    joined = -rng.exponential(500, customers)[customer]
    account_days = np.floor(seconds / 86_400 - joined)
    usual = np.exp(rng.normal(3.6, 0.7, customers))[customer]
    excess = rng.normal(0, 0.8, rows)  # log of the amount's ratio to the usual one
    age = rng.integers(18, 85, customers).astype(float)
    failed = rng.poisson(0.35, rows)
    busy = rng.poisson(1.2, rows)
    in_shop = rng.random(rows) < 0.45
    matches = rng.random(rows) < 0.8
    night = np.exp(-((hour - 3.5) ** 2) / 8)
    distance = np.exp(rng.normal(1.8, 1.1, rows) + 2.5 * abroad)
    unknown_age = rng.random(customers) < 0.05

    evidence = np.sum([
        0.9 * np.maximum(excess, -0.5) * (1 + 0.3 * (merchant_risk > 0)),
        0.75 * merchant_risk,
        0.9 * (email_risk + card_risk)[customer],
        0.8 * np.where(new_device, other_device_risk + 1.0, device_risk[customer]),
        np.where(abroad, 0.9 + country_risk, 0.0),
        -0.5 * np.log1p(account_days / 100),
        0.7 * np.minimum(failed, 4),
        0.35 * np.minimum(busy, 6),
        -1.1 * in_shop,
        -0.8 * matches,
        1.2 * night,
        0.4 * (age[customer] > 65),
    ], axis=0)  # fmt: skip
    is_fraud = rng.random(rows) < _chances(STRENGTH * evidence)

    gap = pd.Series(seconds).groupby(customer).diff()  # none for a customer's first payment
    no_device = rng.random(rows) < np.where(in_shop, 0.6, np.where(is_fraud, 0.12, 0.05))
    no_distance = rng.random(rows) < 0.1 + 0.1 * abroad
    columns: dict[str, Any] = {
        "transaction": np.arange(rows) + 1_000_000,
        "time": START + seconds.astype("timedelta64[s]"),
        "customer": [f"c{number:07d}" for number in customer],
        "amount": np.round(usual * np.exp(excess), 2),
        "usual_amount": np.round(usual * np.exp(rng.normal(0, 0.15, rows)), 2),
        "merchant": merchant,
        "card": card[customer],
        "country": np.where(abroad, other_country, home[customer]),
        "home_country": home[customer],
        "email": email[customer],
        "device": pd.Series(np.where(new_device, other_device, device[customer])).mask(no_device),
        "new_device": np.where(no_device, np.nan, new_device),
        "distance_km": np.where(no_distance, np.nan, np.round(distance, 1)),
        "in_shop": in_shop,
        "address_matches": pd.Series(np.where(matches, "yes", "no")).mask(in_shop),
        "failed_attempts": failed,
        "payments_24h": busy,
        "minutes_since_last": np.round(gap.to_numpy() / 60),
        "account_days": account_days,
        "age": np.where(unknown_age, np.nan, age)[customer],
        "is_fraud": is_fraud.astype(np.int64),
    }
    return pd.DataFrame(columns)


def _drawn(rng: np.random.Generator, values: dict[Any, tuple[float, float]], count: int) -> tuple[NDArray[np.object_], Floats]:
    """Draw values by their shares, and give how much each speaks for fraud."""
    shares, risks = np.array(list(values.values())).T
    chosen = rng.choice(len(values), count, p=shares / shares.sum())
    return np.array(list(values), dtype=object)[chosen], risks[chosen]


def _chances(evidence: Floats) -> Floats:
    """Give chances of fraud that go with the evidence and are FRAUD on average."""
    low, high = -30.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-evidence - middle))) < FRAUD else (low, middle)
    return np.asarray(1 / (1 + np.exp(-evidence - low)))
