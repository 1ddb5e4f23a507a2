"""What workers and package processes both read and write: messages, records, and where to find them."""
