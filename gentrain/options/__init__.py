"""Options: what a config may say. schema declares one, sections holds the shared ones, tree assembles all of them,
check refuses what cannot be, identity says whether two configs are the same run. No plug-in's name stands here, and JAX
is never imported, so a mistake costs a second."""
