"""Common corruptions at five severities: the catalogue and the constants (torch-free), and their computation.

Defined by Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019).
"""
