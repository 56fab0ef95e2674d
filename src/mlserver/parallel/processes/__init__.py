"""How child processes start: new interpreters, and forks of a template process."""
