"""The shop's sales: a CSV file of 200,000 rows, the same wherever it is made."""

import random
from pathlib import Path

ROWS = 200_000
REGIONS = ("north", "south", "east", "west")
_PRODUCTS = 500


def make(path: Path) -> Path:
    """Write the file, unless it is there; return its path."""
    if not path.exists():
        chance = random.Random(15)  # noqa: S311 -- repeatable data, no secret
        rows = (
            f"{number},{chance.randrange(1, 13)},{chance.choice(REGIONS)},product {chance.randrange(_PRODUCTS)},"
            f"{chance.randrange(1, 20)},{chance.uniform(1, 200):.2f}\n"
            for number in range(ROWS)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        with unfinished.open("w") as file:
            file.write("order,month,region,product,pieces,price\n")
            file.writelines(rows)
        unfinished.replace(path)
    return path
