"""What is measured: one file per measure, and the statistics they share."""
