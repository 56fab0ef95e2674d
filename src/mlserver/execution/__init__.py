"""Where models run: in this process (`inline`) or in worker processes (`pool`), behind the contract of `executor`."""
