"""Multi-Glimpse Network (Tan, Dong & Ma, BMVC 2021) for glimpsezoo."""
