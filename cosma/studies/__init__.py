"""Studies: questions whose answer takes more than one compile."""
