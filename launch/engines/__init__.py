"""One command on every engine, one process a host: python -m launch --config=configs/x.py --workdir=/shared/x

The command line is the same on every host; launch/cluster.py reads from the environment what differs. The exit code
tells the engine what to do: after 42 (stopped, or a peer was lost; the state is saved) and after a death by a signal
(128 and more) run the same command again, and it goes on from the last checkpoint; after 1 to 6 do not, it would end
the same way. The workdir is on a file system that all hosts see alike.
"""
