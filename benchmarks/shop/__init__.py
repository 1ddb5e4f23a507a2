"""A small shop's service, as somebody new to mempressure writes it: tables with pandas, charts with matplotlib."""
