"""The mathematics of a comparison between users with a feature and users without it. It knows nothing of a rollout.

`rates` tests bad events, `means` averages and `ratio` how many users have the feature; `inflation` says how much events
come in clusters, and `power` what a test could see. Everything is a pure function of counts.
"""
