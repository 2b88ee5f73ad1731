"""The data sets of arXiv 2504.17397, and EuroSAT, with the splits they were published with."""
