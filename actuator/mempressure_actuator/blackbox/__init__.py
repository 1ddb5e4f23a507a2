"""The black box: reports on the minutes before the kernel's OOM killer killed a process."""
