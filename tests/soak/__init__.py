"""A long run under load and trouble: what must stay flat is sampled."""
