"""The status page: what people see of this machine's memory in a browser, and what they can do about it there."""
