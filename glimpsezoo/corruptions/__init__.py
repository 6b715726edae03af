"""Common corruptions at five severities: the catalogue and the constants (torch-free), and what computes them.

Defined by Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019).
"""
