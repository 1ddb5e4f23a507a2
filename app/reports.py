"""Monthly sums with pandas, which is isolated: it lives in processes that the workers share, not in each worker."""

from typing import TypedDict

from app.utils.lazy_loader import get_lazy_loader

_loader = get_lazy_loader()


class Sale(TypedDict):
    """One row of the report's input."""

    month: int
    amount: int


@_loader.isolated("pandas")
def monthly_sums(sales: list[Sale]) -> dict[int, int]:
    """Return the summed amounts by month."""
    import pandas as pd

    sums = pd.DataFrame(sales).groupby("month")["amount"].sum()
    return {int(month): int(amount) for month, amount in sums.items()}
