"""What papers published, beside what swatsim gets: figures as data, comparisons as functions."""
