"""Metrics: pure functions from samples and data to numbers, in float64; nothing is learned here.

text: BLEU, self-BLEU, distinct n-grams, their Jensen-Shannon divergence, MS-Jaccard, spans that are copied.
manifolds: of points in a space of features: precision, recall, density, coverage, Fréchet and nearest neighbours.
two_sample: of the same points: the kernel distance (KID's) and the sliced Wasserstein distance.
quantised: of the same points in clusters: MAUVE's divergence curve and the frontier integral.
pairs: all pairs of two sets of points, in blocks over the devices: what manifolds and two_sample go by.
frontiers: quality at a given coverage, along a curve of the two.
intervals: how sure a number is: bootstrap and jackknife over samples, paired differences over seeds.
"""
