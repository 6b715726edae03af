"""RAM (Mnih et al., 2014) and DRAM (Ba et al., 2015) as a glimpsezoo plugin. Importing it loads neither torch nor the models."""
