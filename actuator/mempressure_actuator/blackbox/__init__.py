"""The black box: what is known of the time before the kernel killed something for want of memory."""
